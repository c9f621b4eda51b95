"""Raises on non-finite scores: at once on a CPU, one batch later on CUDA, so that the device is never synchronised."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from ..pools import Batch


class NonFiniteError(ValueError):
    """A model's outputs or scores hold NaN or inf.

    Attributes:
        sample: position of the first such sample, where the pool was scored in order.
    """

    sample: int | None = None


class FiniteCheck:
    """Raises `NonFiniteError` for the first batch with samples that are not finite.

    On CUDA the answer is sent to the host behind the work on its batch and read when the next batch is queued, so that the
    device always has work while the host waits.

    Args:
        device: where it is scored.
        late: whether to read answers a batch late; None for True on CUDA only.
    """

    def __init__(self, device: torch.device, late: bool | None = None) -> None:
        self.late = device.type == "cuda" if late is None else late
        self.sent: deque[tuple[Callable[[], Tensor], int]] = deque()

    def see(self, finite: Tensor, batch: Batch) -> None:
        """Takes a batch's answer, bool [B]; raises `NonFiniteError` for it or, with late answers, for the batch before."""
        self.sent.append((send_to_host(finite), batch.start))
        while len(self.sent) > int(self.late):
            self._read()

    def finish(self) -> None:
        """Reads what has not been read."""
        while self.sent:
            self._read()

    def _read(self) -> None:
        arrived, start = self.sent.popleft()
        finite = arrived()
        if bool(finite.all()):
            return
        bad = (~finite).nonzero()[:, 0].tolist()
        first = ", ".join(str(start + i) for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
        error = NonFiniteError(
            f"expected finite outputs and scores, got NaN or inf for {len(bad)} of samples {start} to "
            f"{start + len(finite) - 1} of the pool: {first}. "
            'on_nonfinite="keep" keeps them (select never picks one)'
        )
        error.sample = start + bad[0]
        raise error


def send_to_host(t: Tensor) -> Callable[[], Tensor]:
    """Sends a tensor to the host, and returns a function that waits for it there."""
    if t.device.type != "cuda":
        return lambda: t
    on_host = torch.empty(t.shape, dtype=t.dtype, device="cpu", pin_memory=True)
    on_host.copy_(t, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch's own
    event.record(torch.cuda.current_stream(t.device))

    def arrived() -> Tensor:
        event.synchronize()
        return on_host

    return arrived
