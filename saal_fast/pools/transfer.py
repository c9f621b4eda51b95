"""How samples get to the device that scores them without stopping it.

On CUDA a batch is copied into pinned memory and sent on a stream of its own, so that the copy of one batch runs beside the
work on the batch before. The host prepares at most `MAX_IN_FLIGHT` batches ahead of the device: more would fill its memory.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

MAX_IN_FLIGHT = 2
"""Batches whose work may be queued or running while the host prepares another one."""


class DirectCopy:
    """Copies to a device at once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def begin(self) -> None:
        """Called before a batch is made."""

    def __call__(self, parts: list[Tensor]) -> Tensor:
        """Gives the parts, end to end, in memory of their own on the device."""
        if len(parts) == 1:
            return parts[0].to(self.device, copy=True)
        return torch.cat(parts).to(self.device)


class PinnedCopy(DirectCopy):
    """Copies to a CUDA device through pinned memory, on a side stream; the current stream waits for the copy, not the host.

    PyTorch's allocators reuse pinned memory and the device's own once the work on them is done.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch's own
        self.in_flight: deque[Any] = deque()  # an event a batch, after the work that was queued on it

    def begin(self) -> None:
        """Waits until at most `MAX_IN_FLIGHT` batches are in flight."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch's own
        event.record(torch.cuda.current_stream(self.device))
        self.in_flight.append(event)
        while len(self.in_flight) > MAX_IN_FLIGHT:
            self.in_flight.popleft().synchronize()

    def __call__(self, parts: list[Tensor]) -> Tensor:
        if parts[0].device.type != "cpu":
            return super().__call__(parts)
        staged = parts[0] if len(parts) == 1 and parts[0].is_pinned() else copy_into(pinned_like(parts), parts)
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.side):
            sent = staged.to(self.device, non_blocking=True)
        current.wait_stream(self.side)
        sent.record_stream(current)
        return sent


def copy_to(device: torch.device) -> DirectCopy:
    """The copy that suits a device."""
    return PinnedCopy(device) if device.type == "cuda" else DirectCopy(device)


def pinned_like(parts: list[Tensor]) -> Tensor:
    """Pinned memory that holds the parts end to end."""
    return torch.empty(sum(map(len, parts)), *parts[0].shape[1:], dtype=parts[0].dtype, device="cpu", pin_memory=True)


def copy_into(memory: Tensor, parts: list[Tensor]) -> Tensor:
    """Copies the parts, end to end, into `memory`, and gives it back."""
    begin = 0
    for part in parts:
        memory[begin : begin + len(part)] = part
        begin += len(part)
    return memory
