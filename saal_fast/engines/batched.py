"""What `vmap` knows of a tensor: whether each sample has its own, where it lies, and how each gets one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.utils._pytree import tree_leaves


def is_batched(t: Tensor) -> bool:
    """Whether `vmap` holds one of these for each sample."""
    while _functorch.is_functorch_wrapped_tensor(t):
        if _functorch.is_batchedtensor(t):
            return True
        t = _functorch.get_unwrapped(t)
    return False


def any_batched(tree: Any) -> bool:
    """Whether a pytree has a tensor of which each sample has its own."""
    return any(isinstance(t, Tensor) and is_batched(t) for t in tree_leaves(tree))


def bare(t: Tensor) -> Tensor:
    """The tensor itself, without what `vmap` and the transforms of gradients have wrapped around it."""
    while _functorch.is_functorch_wrapped_tensor(t):
        t = _functorch.get_unwrapped(t)
    return t


@contextmanager
def outside() -> Iterator[None]:
    """Within it, functions of bare tensors run as if there were neither function modes nor transforms."""
    with torch._C.DisableTorchFunction(), torch._C._DisableFuncTorch():
        yield


def memory_of(t: Tensor) -> int | None:
    """The identity of the memory that a tensor shares with its views; None for one without."""
    t = bare(t)
    return t.untyped_storage()._cdata if torch._C._has_storage(t) else None


def memories(tree: Any) -> set[int | None]:
    """`memory_of` all tensors of a pytree."""
    return {memory_of(t) for t in tree_leaves(tree) if isinstance(t, Tensor)}


def flag_of(anchor: Tensor) -> Tensor:
    """True, of each sample its own; 0-d. `anchor` is any tensor of a sample."""
    return anchor.detach().flatten()[:0].sum() == 0


def of_each(t: Tensor, flag: Tensor) -> Tensor:
    """A copy of a tensor that samples share, of each its own: writes to it are a sample's own. `flag` is `flag_of`'s."""
    return torch.where(flag, t, t)
