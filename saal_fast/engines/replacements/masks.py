"""Masks: what a sample takes by one has as many rows as the mask has ones, and only that number is asked for.

Samples with as many ones are scored together, wherever these are. What is written by a mask (`out[mask] = 0`) asks nothing,
unless it writes a row for each of the ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..layers import register_rescue

BOOLEANS = (torch.bool, torch.uint8)
"""Types of tensors that are masks where they are an index."""


@register_rescue(torch.nonzero, Tensor.nonzero, torch.argwhere, Tensor.argwhere)
def nonzero(input: Tensor, as_tuple: bool = False) -> Any:
    """`torch.nonzero`: [n, dims], or a tuple of [n]."""
    if as_tuple:
        return places(input if input.ndim else input[None])
    if input.ndim == 0:
        return input.new_empty((int(input != 0), 0), dtype=torch.int64)
    return torch.stack(places(input), 1)


@register_rescue(torch.where, Tensor.where)
def where(condition: Tensor, *others: Any, **kwargs: Any) -> Any:
    """`torch.where` of one argument."""
    return NotImplemented if others or kwargs else nonzero(condition, as_tuple=True)


@register_rescue(torch.masked_select, Tensor.masked_select)
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """`torch.masked_select`: [n]."""
    input, mask = torch.broadcast_tensors(input, mask)
    return input.flatten()[_ones(mask.flatten())]


@register_rescue(torch.masked_scatter, Tensor.masked_scatter)
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`torch.masked_scatter`."""
    input, mask = torch.broadcast_tensors(input, mask)
    return torch.where(mask, _dealt(mask, source.flatten(), at_least=True), input)


@register_rescue(Tensor.masked_scatter_)
def masked_scatter_(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`Tensor.masked_scatter_`."""
    return input.copy_(masked_scatter(input, mask.expand(input.shape), source))


@register_rescue(Tensor.__getitem__)
def getitem(x: Tensor, index: Any) -> Any:
    """`x[index]` with masks among the index."""
    return x[_without_masks(index)] if _has_masks(index) else NotImplemented


@register_rescue(Tensor.__setitem__)
def setitem(x: Tensor, index: Any, value: Any) -> Any:
    """`x[index] = value` with masks among the index."""
    if not _has_masks(index):
        return NotImplemented
    index = index if isinstance(index, tuple) else (index,)
    before = 0
    while before < len(index) and isinstance(index[before], slice) and index[before] == slice(None):
        before += 1
    mask = index[before]
    rest = index[before + 1 :]
    if not _is_mask(mask) or mask.ndim == 0 or any(i is not Ellipsis and i != slice(None) for i in rest if not _is_mask(i)):
        x[_without_masks(index)] = value
        return None
    if any(map(_is_mask, rest)):
        x[_without_masks(index)] = value
        return None
    mask = mask.bool()
    after = x.ndim - before - mask.ndim
    new = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    wide = mask.reshape(*mask.shape, *(1,) * after)
    if new.ndim > after:  # it may have a row for each of the ones
        place = new.ndim - after - 1
        if new.shape[place] == 1:
            new = new.squeeze(place)
            new = new.reshape(*new.shape[:place], *(1,) * mask.ndim, *new.shape[place:])
        else:
            dealt = _dealt(mask, new.movedim(place, 0), at_least=False)
            new = torch.movedim(dealt, tuple(range(mask.ndim)), tuple(range(place, place + mask.ndim)))
    x.copy_(torch.where(wide, new, x))
    return None


def _dealt(mask: Tensor, rows: Tensor, *, at_least: bool) -> Tensor:
    """Rows [n, ...] dealt to the ones of a mask in their order, [*mask.shape, ...]; anything at the zeros.

    Raises:
        IndexError: there are other than n ones; `at_least` allows fewer.
    """
    ones = int(mask.sum()) if not at_least else None
    if ones is not None and ones != len(rows):
        raise IndexError(f"expected {ones} rows for the ones of a mask {list(mask.shape)}, got {len(rows)}")
    if at_least and bool(mask.sum() > len(rows)):
        raise RuntimeError(f"expected a number for each of the ones of a mask {list(mask.shape)}, got {len(rows)}")
    if len(rows) == 0:
        return rows.new_zeros((*mask.shape, *rows.shape[1:]))
    turn = (mask.flatten().cumsum(0) - 1).clamp(0, len(rows) - 1)
    return rows[turn].reshape(*mask.shape, *rows.shape[1:])


def places(mask: Tensor) -> tuple[Tensor, ...]:
    """Indices of a tensor's non-zeros, a tensor [n] a dimension, in the order of memory."""
    found = _ones((mask != 0).flatten())
    indices = []
    for size in reversed(mask.shape):
        indices.append(found % size if size else found)
        found = found // max(size, 1)
    return tuple(reversed(indices))


def _ones(mask: Tensor) -> Tensor:
    """Where a mask [T] has ones: [n], ascending."""
    n = int(mask.sum())
    order = torch.where(mask, 0, 1).to(torch.uint8).sort(stable=True).indices
    return order[:n]


def _is_mask(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in BOOLEANS


def _has_masks(index: Any) -> bool:
    return any(map(_is_mask, index)) if isinstance(index, tuple) else _is_mask(index)


def _without_masks(index: Any) -> tuple[Any, ...]:
    """An index with the places of its masks' ones instead of these."""
    plain: list[Any] = []
    for i in index if isinstance(index, tuple) else (index,):
        if not _is_mask(i):
            plain.append(i)
        elif i.ndim == 0:
            plain.append(bool(i))
        else:
            plain += places(i)
    return tuple(plain)
