"""Masks: what a sample takes by one has as many rows as the mask has ones, and only that number is asked for.

Samples with as many ones are scored together, wherever these are. What is written by a mask (`out[mask] = 0`) asks nothing,
unless it writes a row for each of the ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..batched import is_batched, memory_of
from ..layers import register_decomposition, register_rescue

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
    shape = torch.broadcast_shapes(input.shape, mask.shape)  # type: ignore[no-untyped-call] # torch's own
    input, mask = input.expand(shape), mask.expand(shape)
    return input.flatten()[_ones(mask.flatten())]


@register_decomposition(torch.masked_scatter, Tensor.masked_scatter)
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Any:
    """`torch.masked_scatter`."""
    if source.dtype != input.dtype:
        return NotImplemented
    shape = torch.broadcast_shapes(input.shape, mask.shape)  # type: ignore[no-untyped-call] # torch's own
    input, mask = input.expand(shape), mask.expand(shape)
    return torch.where(mask, _dealt(mask, source.flatten(), at_least=True), input)


@register_decomposition(Tensor.masked_scatter_)
def masked_scatter_(input: Tensor, mask: Tensor, source: Tensor) -> Any:
    """`Tensor.masked_scatter_`."""
    if source.dtype != input.dtype:
        return NotImplemented
    return input.copy_(masked_scatter(input, mask.expand(input.shape), source))


@register_rescue(torch.narrow, Tensor.narrow)
def narrow(input: Tensor, dim: int, start: Any, length: Any) -> Tensor:
    """`torch.narrow` from a start that is a tensor."""
    return input.narrow(dim, int(start), int(length)) if isinstance(start, Tensor) else NotImplemented


@register_rescue(torch.tensor_split, Tensor.tensor_split)
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> Any:
    """`torch.tensor_split` at places that are a tensor."""
    if not isinstance(indices_or_sections, Tensor):
        return NotImplemented
    return input.tensor_split(indices_or_sections.tolist(), dim)


@register_rescue(Tensor.data.__get__)  # type: ignore[attr-defined]
def data(x: Tensor) -> Tensor:
    """`x.data`."""
    return x.detach()


@register_rescue(Tensor.__getitem__)
def getitem(x: Tensor, index: Any) -> Any:
    """`x[index]` with masks among the index, or slices or integers that are tensors."""
    return x[without_tensors(index)] if _needs_values(index) else NotImplemented


@register_rescue(Tensor.__setitem__)
def setitem(x: Tensor, index: Any, value: Any) -> Any:
    """`x[index] = value` with masks among the index, or slices or integers that are tensors."""
    if not _needs_values(index):
        return NotImplemented
    if isinstance(value, Tensor) and memory_of(value) == memory_of(x):
        value = value.clone()
    if (row := row_of(x, index)) is not None:
        # vectors first: torch before 2.9 takes them for the first dimension under vmap
        vectors = tuple(part for part in row.by if isinstance(part, Tensor))
        found = tuple(range(row.before, row.before + len(vectors)))
        view = x[tuple(slice(None) if isinstance(part, Tensor) else part for part in row.by)]
        view.movedim(found, tuple(range(len(vectors))))[vectors] = value
        return None
    index = index if isinstance(index, tuple) else (index,)
    place = next((i for i, part in enumerate(index) if not _is_all(part)), 0)
    if _is_mask(index[place]) and index[place].ndim and all(map(_is_all_or_more, index[place + 1 :])):
        _write_by_mask(x, place, index[place].bool(), value)
    else:
        x[without_tensors(index)] = value
    return None


def _write_by_mask(x: Tensor, before: int, mask: Tensor, value: Any) -> None:
    """`x[:, ..., mask] = value`, with `before` dimensions before the mask's."""
    after = x.ndim - before - mask.ndim
    new = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    if new.ndim > after:  # it may have a row for each of the ones
        place = new.ndim - after - 1
        if new.shape[place] == 1:
            new = new.reshape(*new.shape[:place], *(1,) * mask.ndim, *new.shape[place + 1 :])
        else:
            dealt = _dealt(mask, new.movedim(place, 0), at_least=False)
            new = dealt.movedim(tuple(range(mask.ndim)), tuple(range(place, place + mask.ndim)))
    x.copy_(torch.where(mask.reshape(*mask.shape, *(1,) * after), new, x))


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


def _is_mask(part: Any) -> bool:
    return isinstance(part, Tensor) and part.dtype in BOOLEANS


def _is_all(part: Any) -> bool:
    return isinstance(part, slice) and part.start is part.stop is part.step is None


def _is_all_or_more(part: Any) -> bool:
    return part is Ellipsis or _is_all(part)


def _is_integer(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim == 0 and not part.is_floating_point() and not _is_mask(part)


def takes_a_view(index: Any) -> bool:
    """Whether an index has integers of each sample's own, and nothing else that makes a copy."""
    parts = index if isinstance(index, tuple) else (index,)
    plain = all(part is None or part is Ellipsis or isinstance(part, (int, slice)) or _is_integer(part) for part in parts)
    return plain and any(_is_integer(part) and is_batched(part) for part in parts)


class Row(NamedTuple):
    """An index whose integers are those of each sample, as vectors of one, which `vmap` gathers.

    Attributes:
        by: the index.
        before: dimensions of its result before the vectors'.
    """

    by: tuple[Any, ...]
    before: int


def row_of(x: Tensor, index: Any) -> Row | None:
    """The index of `x[index]` without 0-d tensors; None where these do not stand side by side, or beside other tensors."""
    parts = index if isinstance(index, tuple) else (index,)
    places = [i for i, part in enumerate(parts) if _is_integer(part)]
    plain = all(
        part is None or part is Ellipsis or isinstance(part, slice) or type(part) is int or _is_integer(part)
        for part in parts
    )
    bounds = any(isinstance(b, Tensor) for p in parts if isinstance(p, slice) for b in (p.start, p.stop, p.step))
    if not places or not plain or bounds or places[-1] - places[0] >= len(places):
        return None
    rest = x.ndim - sum(part is not None and part is not Ellipsis for part in parts)
    before = sum(rest if part is Ellipsis else int(part is None or isinstance(part, slice)) for part in parts[: places[0]])
    return Row(tuple(part.reshape(1) if _is_integer(part) else part for part in parts), before)


def _needs_values(index: Any) -> bool:
    """Whether an index has masks, or integers or bounds of slices that are tensors."""
    return any(
        any(isinstance(b, Tensor) for b in (part.start, part.stop, part.step))
        if isinstance(part, slice)
        else _is_mask(part) or _is_integer(part)
        for part in (index if isinstance(index, tuple) else (index,))
    )


def without_tensors(index: Any) -> tuple[Any, ...]:
    """An index with the places of its masks' ones instead of these, and with Python's integers."""
    plain: list[Any] = []
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, slice):
            plain.append(slice(*(int(b) if isinstance(b, Tensor) else b for b in (part.start, part.stop, part.step))))
        elif _is_integer(part):
            plain.append(int(part))
        elif not _is_mask(part):
            plain.append(part)
        elif part.ndim == 0:
            plain.append(bool(part))
        else:
            plain += places(part)
    return tuple(plain)
