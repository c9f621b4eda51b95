"""Models whose code asks for values (`if mask.all():`, `x.item()`): samples with the same answer are scored together.

`vmap` runs one line of code for all samples, and has no answer where it asks for a number. Where all samples give the same,
that is the answer; where they differ, the batch is split by it (`Diverged`) and each part is scored by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..pools import Batch
from .batched import bare, outside

if TYPE_CHECKING:
    from .problem import Result

QUESTIONS = frozenset(
    {
        Tensor.__bool__,
        Tensor.__int__,
        Tensor.__float__,
        Tensor.__complex__,
        Tensor.__index__,
        Tensor.__array__,
        Tensor.item,
        Tensor.tolist,
        Tensor.numpy,
        Tensor.is_nonzero,
        torch.is_nonzero,
    }
)
"""Functions that ask a tensor for its values."""

TEXTS = frozenset({Tensor.__format__, Tensor.__repr__})
"""Functions that write a tensor's values down."""


class Diverged(Exception):  # noqa: N818 - says what the samples did; not an error, where it is met by a split
    """Samples of a batch answer differently.

    Attributes:
        parts: for each answer, the samples that give it.
    """

    def __init__(self, parts: list[Tensor]) -> None:
        super().__init__("samples of a batch take different branches of the model's code")
        self.parts = parts


def ask(fn: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`fn(x)`, one of `QUESTIONS`, where x may be a tensor of `vmap`'s.

    Raises:
        Diverged: samples give different answers.
    """
    values = values_of(x)
    value = bare(values if values.ndim == x.ndim else value_for_all(values))
    with outside():
        answer = fn(value, *args, **kwargs)
    if isinstance(answer, np.ndarray):
        answer.flags.writeable = False  # the memory of one sample, not of all
    return answer


def all_alike(rows: Tensor) -> bool:
    """Whether the rows of [B, ...] are the same."""
    return not (rows.numel() and bool((rows != rows[:1]).any()))


def value_for_all(values: Tensor) -> Tensor:
    """The value that all samples have in common, of the values [B, ...] of each.

    Raises:
        Diverged: they have none.
    """
    each = values.reshape(len(values), -1)
    if not all_alike(each):
        which = torch.unique(each, dim=0, return_inverse=True)[1]
        if int(which.max()) > 0:
            raise Diverged([(which == k).nonzero()[:, 0] for k in range(int(which.max()) + 1)])
    return values[0]


def ask_text(fn: Any, x: Tensor, *args: Any, **kwargs: Any) -> str:
    """`fn(x)`, one of `TEXTS`, where x may be a tensor of `vmap`'s.

    Raises:
        Diverged: samples give different texts.
    """
    values = values_of(x)
    each = [values] if values.ndim == x.ndim else list(values)
    with outside():
        texts = np.array([fn(bare(value), *args, **kwargs) for value in each])
    kinds, which = np.unique(texts, return_inverse=True)
    if len(kinds) > 1:
        raise Diverged([torch.from_numpy(np.flatnonzero(which == k)).to(values.device) for k in range(len(kinds))])
    return str(texts[0])


def values_of(x: Tensor) -> Tensor:
    """A tensor's values; those of all samples [B, ...] where it is one of `vmap`'s."""
    cell = _Cell()
    _Read.apply(x, cell)
    return cell.values


ANSWERS: dict[Any, Callable[..., Any]] = dict.fromkeys(QUESTIONS, ask) | dict.fromkeys(TEXTS, ask_text)
"""What answers each of `QUESTIONS` and `TEXTS`."""


SAMPLES_WORTH_A_PART = 6
"""Samples that, scored one after the other, take the time of one part, or of one that divides further.

Measured: 1.3 to 12.
"""

MAX_FREE_PARTS = 4
"""Parts of any size that a batch may fall into."""


@dataclass
class Splits:
    """How batches are split, and what becomes of small parts.

    Attributes:
        alone: scores a part's samples one after the other; None for parts of every size by the engine itself.
        samples: how many have been scored.
        by_themselves: how many of them `alone` has scored.
    """

    alone: Callable[[Batch], Result] | None = None
    samples: int = 0
    by_themselves: int = 0

    def score(self, score: Callable[[Batch], Result], batch: Batch) -> Result:
        """`score(batch)`, part by part where its samples diverge, the largest first.

        Where these are more than `MAX_FREE_PARTS`, those of fewer than `SAMPLES_WORTH_A_PART` samples are handed to `alone`;
        and so are all that are left, once dividing has cost a quarter of what the batch's samples cost one after the other.
        """
        self.samples += batch.size
        try:
            return score(batch)
        except Diverged as split:
            parts = split.parts
        order: list[Tensor] = []
        results: list[Result] = []
        known, cost = len(parts), 0
        while parts:
            parts.sort(key=len)
            rows = parts.pop()
            part = batch.take(rows)
            small = part.size < SAMPLES_WORTH_A_PART or cost > batch.size / 4 + SAMPLES_WORTH_A_PART * MAX_FREE_PARTS
            if self.alone is not None and known > MAX_FREE_PARTS and small:
                self.by_themselves += part.size
                results.append(self.alone(part))
                order.append(rows)
                continue
            cost += SAMPLES_WORTH_A_PART
            try:
                results.append(score(part))
            except Diverged as split:
                known += len(split.parts) - 1
                parts += [rows[at] for at in split.parts]
                continue
            order.append(rows)
            cost -= part.size
        places = torch.cat(order).argsort()
        joined: Result = tree_map(lambda *columns: torch.cat(columns)[places], *results)
        return joined


@runtime_checkable
class Splitting(Protocol):
    """An engine that splits batches."""

    splits: Splits


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
