"""Samples of a pool by position, and `Labelled`, the data set that a round trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from ..pools import Batch, Stream


def pool_size(pool: Any) -> int:
    """Number of samples in a pool that can be indexed.

    Raises:
        TypeError: the pool cannot be indexed.
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
    """The samples at positions `rows`, int64 [n], as a pool of the same kind; a `Subset` of a dataset or a list."""
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
        pool: a pool that can be indexed.
        rows: positions in the pool; int64 [n].
        labels: their labels; [n, ...].
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
        """Inputs for a model and labels [b, ...] of the samples at `positions`, int64 [b], on `device`."""
        batch = next(Stream(take(self.inputs, positions), device).batches(len(positions)))
        return batch, self.labels[positions].to(device)
