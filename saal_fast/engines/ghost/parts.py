"""Which memory of a parameter a layer uses as its weight: all of it, a slice, a transpose.

A packed weight (`nn.MultiheadAttention`'s in_proj_weight) is split into parts, each the weight of a layer of its own;
`x @ W.T` uses a weight through a view. Parts that share no number have gradients that share none.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..layers import LayerCall, Place

Use = tuple[LayerCall, tuple[int, ...]]
"""A call that uses a weight, and the shape of its output."""


class View(NamedTuple):
    """A view of a parameter, wherever the parameter's memory lies.

    Attributes:
        offset: from the parameter's first number.
        shape: sizes.
        stride: strides.
    """

    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, t: Tensor, parameter: Tensor) -> View:
        """The view of the parameter that a tensor is."""
        return cls(int(t.storage_offset() - parameter.storage_offset()), tuple(t.shape), t.stride())

    def within(self, parameter: Tensor) -> Tensor:
        """The view of this parameter, or of another like it."""
        return parameter.as_strided(self.shape, self.stride, parameter.storage_offset() + self.offset)

    def place(self, parameter: Tensor) -> Place:
        """The place of `within(parameter)`."""
        storage = parameter.untyped_storage()._cdata
        return Place(storage, int(parameter.storage_offset()) + self.offset, self.shape, self.stride)


def parts_of(uses: Sequence[Use]) -> list[list[Use]] | None:
    """The uses of a parameter by the part of it that they use; None where parts share numbers."""
    parts: list[list[Use]] = []
    for use in uses:
        part = next((part for part in parts if _same(part[0][0], use[0])), None)
        parts.append([use]) if part is None else part.append(use)
    return parts if are_disjoint([part[0][0].weight for part in parts]) else None


def _same(a: LayerCall, b: LayerCall) -> bool:
    """Whether two calls use the same part in the same places of `G Aᵀ`."""
    if a.layer == b.layer and Place.of(a.weight) == Place.of(b.weight):
        return True
    return Place.of(a.layer.matrix(a.weight)) == Place.of(b.layer.matrix(b.weight))


def are_disjoint(views: Sequence[Tensor]) -> bool:
    """Whether no number of a memory is in these views of it twice."""
    if len(views) == 1 and views[0].is_contiguous():
        return True
    spans = sorted((_span(t) for t in views), key=lambda span: span[0])
    if all(last - first + 1 == t.numel() for t in views for first, last in [_span(t)]) and all(
        before[1] < after[0] for before, after in itertools.pairwise(spans)
    ):
        return True
    first, last = spans[0][0], max(last for _, last in spans)
    numbers = torch.arange(last - first + 1)
    taken = torch.cat([numbers.as_strided(t.shape, t.stride(), t.storage_offset() - first).flatten() for t in views])
    return int(torch.bincount(taken).max()) <= 1


def _span(t: Tensor) -> tuple[int, int]:
    """Offsets of a tensor's first and last number."""
    reach = sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
    first = int(t.storage_offset())
    return first, first + reach
