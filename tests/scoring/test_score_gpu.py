"""`score` on a CUDA device."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset

import saal_fast

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 9, 5),
    )  # fmt: skip


class Watched(IterableDataset):
    """While most of it is read, PyTorch raises where the host waits for the device (other than for an event)."""

    def __init__(self, pool, quiet):
        self.pool, self.quiet = pool, quiet

    def __iter__(self):
        mode = torch.cuda.get_sync_debug_mode()
        try:
            for i, x in enumerate(self.pool):
                if i == self.quiet:
                    torch.cuda.set_sync_debug_mode("error")
                yield x
        finally:
            torch.cuda.set_sync_debug_mode(mode)


@pytest.mark.parametrize("graphs", [False, True])
def test_no_batch_makes_the_host_wait(graphs, monkeypatch):
    if not graphs:
        monkeypatch.setattr("saal_fast.engines.capture.captured_engine.MAX_GRAPHS", 0)
    model, pool = network(), torch.randn(97, 3, 8, 8)
    want = saal_fast.score(model, pool)
    got = saal_fast.score(model, Watched(pool, quiet=41), batch_size=8, device="cuda")
    torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-4)  # convolutions may run in TF32


def test_what_is_not_finite_is_told(monkeypatch):
    model, pool = network(), torch.randn(20, 3, 8, 8)
    pool[9] = torch.nan
    with pytest.raises(saal_fast.NonFiniteError, match=r"1 of samples 8 to 15 of the pool: 9\."):
        saal_fast.score(model, pool, batch_size=8, device="cuda")
    kept = saal_fast.score(model, pool, batch_size=8, device="cuda", on_nonfinite="keep", details=True)
    assert (~kept.finite).nonzero()[:, 0].tolist() == [9]


def test_a_stream_of_the_callers_own():
    model, pool = network().cuda(), torch.randn(50, 3, 8, 8)
    want = saal_fast.score(model, pool, batch_size=16)
    with torch.cuda.stream(torch.cuda.Stream()):
        got = saal_fast.score(model, pool, batch_size=16)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
