"""How many samples to score at once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .._native import core
from .available import available_memory
from .uninterrupted import uninterrupted

CPU_TARGET = 1280 * 2**20
"""Bytes a batch may take on a CPU: smaller ones pay for dispatch, larger gain nothing (ResNet-18 on 32×32: 64 samples)."""

MAX_BATCH = 1024
MAX_BATCH_ON_CUDA = 8192
"""A GPU has thousands of threads to fill, and each batch costs the host the same, however large."""


def batch_size(forward: Callable[[], object], device: torch.device, extra: int = 0, most: int | None = None) -> int:
    """A batch size whose activations, and what is kept with them, fit the device.

    Args:
        forward: runs the model on a batch of one.
        device: where the model runs.
        extra: bytes a sample kept with the activations.
        most: bytes a batch may take; None for `CPU_TARGET` on a CPU.

    Returns:
        A size in [1, 1024] (8,192 on CUDA), such that a batch stays within `most` bytes and a quarter of what is to be had.
    """
    return size_for(activations(forward), device, extra, most)


def activations(forward: Callable[[], object]) -> int:
    """Bytes that a forward pass allocates."""
    with torch.no_grad(), Meter() as meter:
        forward()
    return int(meter.bytes)


def size_for(activations: int, device: torch.device, extra: int = 0, most: int | None = None) -> int:
    """`batch_size` of a model whose activations for one sample take so many bytes."""
    per_sample = 2 * activations + extra  # values, and their gradients
    largest = MAX_BATCH_ON_CUDA if device.type == "cuda" else MAX_BATCH
    return int(max(1, min(largest, _budget(device, most) // max(1, per_sample))))


def evened(size: int, length: int | None) -> int:
    """The size of batches of at most `size` that fall nearly evenly on a pool of known length: no small rest."""
    return math.ceil(length / math.ceil(length / size)) if length else size


def freed_is_kept(device: torch.device) -> AbstractContextManager[None]:
    """Within it, memory that a batch has freed serves the next one, until the last thread has left.

    On a CPU the C library would give large blocks back to the system again and again, and each page of a new one is a fault:
    of ResNet-18's time, up to a tenth. A CUDA device has PyTorch's allocator for the same purpose.
    """
    if device.type != "cpu":
        return nullcontext()
    keep = core().keep_freed_memory
    return uninterrupted(partial(keep, True), partial(keep, False))  # no Python in between, where a signal might strike


def exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on a CPU torch says so in a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def free(device: torch.device) -> int | None:
    """Bytes to be had on a device; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = available_memory()
    if found is None and hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return found


def _budget(device: torch.device, most: int | None = None) -> int:
    available = free(device)
    if device.type == "cuda" and available is not None:
        return available // 4 if most is None else min(most, available // 4)
    most = CPU_TARGET if most is None else most
    return most if available is None else min(most, max(available // 4, 2**20))


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Memory that tensors hold."""
    return sum(t.numel() * t.element_size() for t in tensors)


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own
    """Adds up the memory of everything that operations allocate."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's own
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operation and counts outputs in memory of their own."""
        out = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in _dense((args, kwargs))}
        self.bytes += sum(nbytes([t]) for t in _dense(out) if t.untyped_storage().data_ptr() not in known)
        return out


def _dense(tree: Any) -> Iterator[Tensor]:
    """The tensors of a pytree that have one storage (a sparse one has several, a zero tangent of forward mode has none)."""
    return (t for t in tree_leaves(tree) if isinstance(t, Tensor) and t.layout == torch.strided and not t._is_zerotensor())
