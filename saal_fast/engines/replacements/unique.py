"""Values without repeats: only how many there are is asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..layers import register_rescue
from .masks import places


@register_rescue(torch.unique, Tensor.unique)
def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """`torch.unique` over all dimensions: [n], and for each number which of them it is, and how often each comes."""
    if dim is not None and input.ndim != 1:
        return NotImplemented
    values, order = input.flatten().sort(stable=True)
    found, which, counts = _runs(values)
    inverse = torch.zeros_like(which).scatter(0, order, which).reshape(input.shape)
    return _asked(found, inverse, counts, return_inverse, return_counts)


@register_rescue(torch.unique_consecutive, Tensor.unique_consecutive)
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """`torch.unique_consecutive` over all dimensions."""
    if dim is not None and input.ndim != 1:
        return NotImplemented
    found, which, counts = _runs(input.flatten())
    return _asked(found, which.reshape(input.shape), counts, return_inverse, return_counts)


def _runs(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first of each run of equal numbers [n], which run each belongs to [T], and how long they are [n]."""
    begins = torch.cat([torch.ones_like(values[:1], dtype=torch.bool), values[1:] != values[:-1]])
    which = begins.cumsum(0) - 1
    (first,) = places(begins)
    end = torch.full_like(first[:1], len(values))
    return values[first], which, torch.cat([first[1:], end]) - first


def _asked(found: Tensor, inverse: Tensor, counts: Tensor, return_inverse: bool, return_counts: bool) -> Any:
    out = (found, *((inverse,) if return_inverse else ()), *((counts,) if return_counts else ()))
    return out if len(out) > 1 else found
