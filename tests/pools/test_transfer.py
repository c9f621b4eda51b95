"""How batches come to a device. CUDA is played by a fake that writes down what it is asked; where there is one, tried."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from saal_fast.pools import stream as pools
from saal_fast.pools import transfer
from saal_fast.pools.transfer import MAX_IN_FLIGHT, DirectCopy, PinnedCopy, copy_to


@pytest.fixture
def asked(monkeypatch):
    """A CUDA that copies to the CPU; gives the list of what it was asked."""
    asked, streams = [], ["current"]

    class Stream:
        def __init__(self, device=None):
            self.name = "side"

        def wait_stream(self, other):
            asked.append(f"current waits for {other.name}")

    class Event:
        def record(self, stream):
            self.number = sum(a.startswith("record") for a in asked)
            asked.append(f"record {self.number}")

        def synchronize(self):
            asked.append(f"host waits for {self.number}")

    @contextmanager
    def stream(side):
        streams.append(side.name)
        yield
        streams.pop()

    current = Stream()
    fake = SimpleNamespace(Stream=Stream, Event=Event, stream=stream, current_stream=lambda device: current)

    def to(self, device, *, non_blocking=False, copy=False):
        asked.append(f"copy on {streams[-1]}{', queued' if non_blocking else ''}")
        return self.clone()

    monkeypatch.setattr(torch, "cuda", fake)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: False)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: asked.append("kept for current"))
    monkeypatch.setattr(
        transfer, "pinned_like", lambda parts: torch.empty(sum(map(len, parts)), *parts[0].shape[1:], dtype=parts[0].dtype)
    )
    monkeypatch.setattr(pools, "copy_to", PinnedCopy)
    return asked


def test_a_batch_is_copied_on_the_side_and_waited_for_by_the_current_stream(asked):
    send = PinnedCopy(torch.device("cuda"))
    parts = [torch.randn(2, 3), torch.randn(1, 3)]
    assert torch.equal(send(parts), torch.cat(parts))
    assert asked == ["copy on side, queued", "current waits for side", "kept for current"]


def test_the_host_is_two_batches_ahead_and_waits_for_nothing_else(asked):
    x = torch.arange(10)
    batches = list(pools.Stream(x, torch.device("cuda")).batches(2))
    assert torch.equal(torch.cat([b.args[0] for b in batches]), x)
    assert [a for a in asked if "host" in a] == [f"host waits for {i}" for i in range(5 - MAX_IN_FLIGHT)]
    third = asked.index("record 2")
    assert asked[third + 1] == "host waits for 0"


def test_on_a_cpu_batches_are_copied_on_the_spot():
    assert type(copy_to(torch.device("cpu"))) is DirectCopy
    x = torch.randn(3, 2)
    out = copy_to(torch.device("cpu"))([x])
    assert torch.equal(out, x)
    assert out.data_ptr() != x.data_ptr()
    assert torch.equal(copy_to(torch.device("cpu"))([x, x]), torch.cat([x, x]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestCuda:
    @pytest.mark.parametrize("pin", [False, True])
    def test_batches_arrive_whole_while_the_device_is_busy(self, pin):
        x = torch.randn(64, 1000, 100)
        pool = x.pin_memory() if pin else x
        busy = torch.randn(2000, 2000, device="cuda")
        sums = []
        for batch in pools.Stream(pool, torch.device("cuda")).batches(7):
            for _ in range(5):
                busy = (busy @ busy).tanh()
            sums.append(batch.args[0].flatten(1).sum(1))
            batch.args[0].zero_()
        torch.testing.assert_close(torch.cat(sums).cpu(), x.flatten(1).sum(1), rtol=1e-3, atol=1e-1)

    def test_no_batch_stops_the_device(self):
        """PyTorch itself raises where the host waits; the events of this file are the only ones it may wait for."""
        x = torch.randn(40, 100)
        stream = pools.Stream(x, torch.device("cuda"))
        stream.peek()
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for batch in stream.batches(8):
                batch.args[0].mul_(2)
        finally:
            torch.cuda.set_sync_debug_mode(mode)
