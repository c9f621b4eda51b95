"""Models whose code asks for values (`if mask.all():`, `x.item()`): samples with the same answer are scored together.

`vmap` runs one line of code for all samples, and has no answer where it asks for a number. Where all samples give the same,
that is the answer; where they differ, the batch is split by it (`Diverged`) and each part is scored by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..pools import Batch

if TYPE_CHECKING:
    from .problem import Result

QUESTIONS = frozenset({Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.item, Tensor.tolist})
"""Methods that ask a tensor for its values."""


class Diverged(Exception):  # noqa: N818 - says what the samples did; not an error, where it is met by a split
    """Samples of a batch answer differently.

    Attributes:
        parts: for each answer, the samples that give it.
    """

    def __init__(self, parts: list[Tensor]) -> None:
        super().__init__("samples of a batch take different branches of the model's code")
        self.parts = parts


def ask(fn: Any, x: Tensor) -> Any:
    """`fn(x)`, one of `QUESTIONS`, where x may be a tensor of `vmap`'s.

    Raises:
        Diverged: samples give different answers.
    """
    cell = _Cell()
    _Read.apply(x, cell)
    if cell.values.ndim == x.ndim:
        return fn(cell.values)
    each = cell.values.reshape(len(cell.values), -1)
    if each.numel() and bool((each != each[:1]).any()):
        which = torch.unique(each, dim=0, return_inverse=True)[1]
        if int(which.max()) > 0:
            raise Diverged([(which == k).nonzero()[:, 0] for k in range(int(which.max()) + 1)])
    return fn(cell.values[0])


def by_branches(score: Callable[[Batch], Result], batch: Batch) -> Result:
    """`score(batch)`, part by part where its samples diverge."""
    try:
        return score(batch)
    except Diverged as split:
        parts = split.parts
    results = [by_branches(score, batch.take(rows)) for rows in parts]
    order = torch.cat(parts).argsort()
    joined: Result = tree_map(lambda *rows: torch.cat(rows)[order], *results)
    return joined


class _Cell:
    """Receives a tensor's values; not a list, which torch would flatten and pass on as a copy."""

    values: Tensor


class _Read(torch.autograd.Function):
    """Reads a tensor's values, those of all samples [B, ...] where it is one of `vmap`'s."""

    @staticmethod
    def forward(x: Tensor, cell: _Cell) -> Tensor:
        cell.values = x.detach()
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, None], x: Tensor, cell: _Cell) -> tuple[Tensor, int | None]:
        dim = in_dims[0]
        cell.values = x.detach() if dim is None else x.detach().movedim(dim, 0)
        return x.clone(), dim
