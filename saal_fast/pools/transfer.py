"""How samples come to the device that scores them, without a stop.

On CUDA a batch is laid into pinned memory and copied on a stream of its own, so that the copy of one batch runs beside the
work on the one before. The host prepares at most two batches ahead of the device: more would fill its memory.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

AHEAD = 2
"""Batches whose work may be queued, or under way, while another one is prepared."""


class Copied:
    """Copies on the spot."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def begin(self) -> None:
        """Called before a batch is made."""

    def __call__(self, parts: list[Tensor]) -> Tensor:
        """The parts, end to end, in memory of their own on the device."""
        if len(parts) == 1:
            return parts[0].to(self.device, copy=True)
        return torch.cat(parts).to(self.device)


class Queued(Copied):
    """Copies to a CUDA device through pinned memory, on a side stream; the current stream waits for the copy, the host not.

    Pinned memory and the device's own are reused by PyTorch's allocators once the work on them is done.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch's own
        self.under_way: deque[Any] = deque()  # an event a batch, after the work that was queued on it

    def begin(self) -> None:
        """Waits until no more than `AHEAD` batches are under way."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch's own
        event.record(torch.cuda.current_stream(self.device))
        self.under_way.append(event)
        while len(self.under_way) > AHEAD:
            self.under_way.popleft().synchronize()

    def __call__(self, parts: list[Tensor]) -> Tensor:
        if parts[0].device.type != "cpu":
            return super().__call__(parts)
        staged = parts[0] if len(parts) == 1 and parts[0].is_pinned() else laid(parts, pinned(parts))
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.side):
            there = staged.to(self.device, non_blocking=True)
        current.wait_stream(self.side)
        there.record_stream(current)
        return there


def sender(device: torch.device) -> Copied:
    """The way to a device."""
    return Queued(device) if device.type == "cuda" else Copied(device)


def pinned(parts: list[Tensor]) -> Tensor:
    """Room for the parts end to end in pinned memory."""
    return torch.empty(sum(map(len, parts)), *parts[0].shape[1:], dtype=parts[0].dtype, pin_memory=True)


def laid(parts: list[Tensor], room: Tensor) -> Tensor:
    """The parts, end to end, in that room."""
    begin = 0
    for part in parts:
        room[begin : begin + len(part)] = part
        begin += len(part)
    return room
