"""Some samples of a pool, with the labels given for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


@dataclass(frozen=True)
class Batch:
    """Some samples of a pool, ready for `model(*args, **kwargs)`.

    Attributes:
        args: positional inputs, each `[size, ...]`.
        kwargs: keyword inputs, each `[size, ...]`.
        size: number of samples, at least one.
        start: position of the first sample in the order of the pool; after `take`, of the batch that rows were taken from.
        labels: labels given for the samples, a pytree of `[size, ...]`; None where the model's pseudo-labels count.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    size: int
    start: int = 0
    labels: Any | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All inputs that are tensors, without the labels."""
        return [t for t in tree_leaves((self.args, self.kwargs)) if isinstance(t, Tensor)]

    def map(self, function: Callable[[Tensor], Tensor], *, size: int | None = None, start: int | None = None) -> Batch:
        """The batch with `function` applied to each input and label; `size` and `start` replace the batch's own."""
        args, kwargs, labels = tree_map(
            lambda t: function(t) if isinstance(t, Tensor) else t, (self.args, self.kwargs, self.labels)
        )
        return Batch(args, kwargs, self.size if size is None else size, self.start if start is None else start, labels)

    def slice(self, begin: int, end: int) -> Batch:
        """Samples [begin, end), `end` at most `size`; the batch itself where these are all.

        Raises:
            ValueError: the batch has no such sample.
        """
        if not 0 <= begin < end or begin >= self.size:
            raise ValueError(f"expected 0 <= begin < end and begin < {self.size}, got [{begin}, {end})")
        end = min(end, self.size)
        if (begin, end) == (0, self.size):
            return self
        return self.map(lambda t: t[begin:end], size=end - begin, start=self.start + begin)

    def take(self, rows: Tensor) -> Batch:
        """The samples at `rows`, int64 [n], n >= 1, in that order; `start` stays the batch's.

        Raises:
            ValueError: rows is another tensor, a mask for instance.
        """
        if rows.dtype != torch.int64 or rows.ndim != 1 or not len(rows):
            raise ValueError(f"expected rows as int64 [n], n >= 1; got {rows.dtype} {list(rows.shape)}")
        return self.map(lambda t: t[rows], size=len(rows))

    def with_labels(self, labels: Any | None) -> Batch:
        """The same samples with labels given for them."""
        return replace(self, labels=labels)
