"""Rows of a pool: what is labelled, what is not, and batches of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from ..pools import Batch, Stream


def length(pool: Any) -> int:
    """How many samples a pool holds that can be indexed.

    Raises:
        TypeError: it cannot be indexed.
    """
    indexed = isinstance(pool, (Tensor, np.ndarray, Mapping, Dataset, Sequence)) or (
        hasattr(pool, "__len__") and hasattr(pool, "__getitem__")
    )
    if not indexed or isinstance(pool, (DataLoader, IterableDataset, str, bytes)):
        raise TypeError(
            "expected a pool whose samples can be indexed (a tensor, an array, a mapping of tensors, a dataset with __len__ "
            f"and __getitem__, a list); got {type(pool).__name__}"
        )
    count = Stream(pool, torch.device("cpu")).length
    if count is None:
        raise TypeError(f"expected a pool that knows how many samples it has; {type(pool).__name__} does not")
    return count


def take(pool: Any, rows: Tensor) -> Any:
    """The samples at `rows`, int64 [n], as a pool of the same kind (of a dataset or a list, a `Subset`)."""
    if isinstance(pool, Mapping):
        return {key: take(part, rows) for key, part in pool.items()}
    if isinstance(pool, Tensor):
        return pool[rows.to(pool.device)]
    if isinstance(pool, np.ndarray):
        return pool[rows.numpy()]
    return Subset(pool, rows.tolist())


class Labelled(Dataset[tuple[Any, Tensor]]):
    """The labelled samples of a pool, as items (x, y).

    Args:
        pool: that can be indexed.
        rows: int64 [n], positions in the pool.
        labels: [n, ...].
    """

    def __init__(self, pool: Any, rows: Tensor, labels: Tensor) -> None:
        self.inputs = take(pool, rows)
        self.rows = rows
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        if isinstance(self.inputs, Mapping):
            return {key: part[index] for key, part in self.inputs.items()}, self.labels[index]
        item = self.inputs[index]
        return (item[0] if isinstance(item, tuple) else item), self.labels[index]

    def batch(self, positions: Tensor, device: torch.device) -> tuple[Batch, Tensor]:
        """The samples at `positions`, int64 [b], as a model's inputs, and their labels [b, ...], both on `device`."""
        batch = next(Stream(take(self.inputs, positions), device).batches(len(positions)))
        return batch, self.labels[positions].to(device)


def pairs(indices: Any, labels: Any, *, size: int | None = None) -> tuple[list[int], list[Any]]:
    """Positions and their labels as plain lists.

    Args:
        indices: whole numbers; [n].
        labels: numbers, or arrays of one shape; [n, ...].
        size: what positions stay below; None where that is known otherwise.

    Raises:
        TypeError: a position is no whole number, or labels are no numbers.
        ValueError: more or fewer labels than positions, labels of several shapes or not finite, or a position out of
            range or twice.
    """
    try:
        at = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected positions as whole numbers of shape [n]: {error}") from error
    if at.numel() == 0:
        at = at.long()
    if at.ndim != 1 or at.is_floating_point() or at.dtype == torch.bool:
        raise TypeError(f"expected positions as whole numbers of shape [n], got {at.dtype} {list(at.shape)}")
    if isinstance(labels, (list, tuple)):
        labels = [y.tolist() if isinstance(y, (Tensor, np.ndarray)) else y for y in labels]
        word = next((y for y in labels if isinstance(y, str)), None)
        if word is not None:
            raise TypeError(f"expected labels as numbers, the classes' positions say; got {word!r}")
    try:
        answers = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected labels as numbers, or arrays of one shape: {error}") from error
    if answers.ndim < 1 or len(answers) != len(at):
        raise ValueError(f"expected labels for {len(at)} samples, got {list(answers.shape)}")
    given = at.tolist()
    lost = [i for i, good in zip(given, answers.isfinite()[:, None].flatten(1).all(1).tolist(), strict=True) if not good]
    if lost:
        raise ValueError(f"expected finite labels, got NaN or inf for the samples {lost[:5]}")
    if size is not None:
        stray = sorted(i for i, times in Counter(given).items() if times > 1 or not 0 <= i < size)
        if stray:
            raise ValueError(f"expected different positions in [0, {size}), got {stray[:5]} among them")
    return given, answers.tolist()


def alike(labels: list[Any], told: Any) -> list[Any]:
    """Labels, as `pairs` gives them, of the kind of one that is told already; whole numbers become floats beside floats.

    Raises:
        ValueError: they are of another shape or kind; labels of one run can be stacked.
    """
    given, known = torch.tensor(labels), torch.tensor(told)
    if not labels:
        return labels
    if given.shape[1:] != known.shape:
        raise ValueError(f"expected labels of shape {list(known.shape)}, as those told before; got {list(given.shape[1:])}")
    if known.is_floating_point() and not given.is_floating_point() and given.dtype != torch.bool:
        return list(given.to(known.dtype).tolist())
    if given.dtype != known.dtype:
        raise ValueError(f"expected labels of {known.dtype}, as those told before; got {given.dtype}")
    return labels
