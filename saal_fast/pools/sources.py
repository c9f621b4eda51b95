"""From a pool to chunks.

tensor, array, mapping of these    one chunk, sliced
Dataset, IterableDataset, list     one chunk a sample; all samples have one shape
DataLoader, WebLoader              one chunk a batch; shapes may differ from batch to batch
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from .._utils.notes import add_note
from . import promises
from .inputs import Chunk, Signature, common_size, describe, inputs_of, signature
from .mends import of_iterable, refusal, type_name
from .promises import Promise
from .workers import raise_as_in_worker


def open_pool(pool: Any) -> tuple[int | None, Iterator[Chunk]]:
    """The number of samples a pool says it has, None where it cannot say, and its chunks.

    Raises:
        TypeError: it is no pool; the message says what to make of it.
        ValueError: the tensors of a mapping differ in N.
    """
    if isinstance(pool, torch.Tensor | np.ndarray | Mapping):
        columns = inputs_of(pool, "the pool")
        return common_size(columns, "the pool"), iter([columns])
    if isinstance(pool, DataLoader):
        promise = promises.of_loader(pool)
        rests = isinstance(pool.dataset, IterableDataset) and pool.drop_last  # of each worker, which it drops
        return None if rests else promise.length, promise.held(_from_loader(pool))
    if _is_webloader(pool):
        return None, _from_batches(_open_webloader(pool), type(pool).__name__)
    if isinstance(pool, IterableDataset):
        promise = promises.of_items(pool)
        return promise.length, promise.held(_from_items(pool))
    why = None
    if hasattr(pool, "__len__") and hasattr(pool, "__getitem__"):
        why = refusal(pool)
        length = promises.length_of(pool) if why is None else None
        if length is not None:
            return length, Promise(length, length).held(_from_items(_indexed(pool, length)))
    raise TypeError(
        "expected a pool that is a tensor, an array, a mapping of tensors, a dataset with __len__ and "
        "__getitem__, an IterableDataset, a DataLoader or a list of samples; got "
        f"{type_name(pool)}{of_iterable(pool) if why is None else f'; {why}'}"
    )


def _indexed(pool: Any, length: int) -> Iterator[Any]:
    for index in range(length):
        try:
            item = pool[index]
        except StopIteration as error:
            raise ValueError(
                f"sample {index} of the pool raised StopIteration: expected {length} samples, as its len() says; got {index}"
            ) from error
        yield item


def _from_items(items: Iterable[Any]) -> Iterator[Chunk]:
    first: Signature | None = None
    for index, item in enumerate(_noted(items, "sample {} of the pool raised this")):
        inputs = inputs_of(item, f"sample {index} of the pool")
        found = signature(inputs)
        if first is None:
            first = found
        elif found != first:
            raise ValueError(
                f"samples differ: sample 0 of the pool is {describe(first)}, sample {index} of the pool is "
                f"{describe(found)}; pad or resize them, or bring a DataLoader with a collate_fn that pads"
            )
        yield {key: tensor.unsqueeze(0) for key, tensor in inputs.items()}


def _from_batches(batches: Iterable[Any], source: str) -> Iterator[Chunk]:
    for number, batch in enumerate(_noted(batches, f"batch {{}} of the {source} raised this")):
        where = f"batch {number} of the {source}"
        inputs = inputs_of(batch, where)
        common_size(inputs, where)
        yield inputs


def _from_loader(loader: DataLoader[Any]) -> Iterator[Chunk]:
    # A collate_fn that drops samples, or whose output is no batch (a list of samples), is an error. Of map-style datasets
    # it is known how many samples were drawn, of iterable ones how many at most.
    draws = _Draws(loader)
    got = 0
    for number, inputs in enumerate(_from_batches(draws.loader, "DataLoader")):
        size = next(iter(inputs.values())).shape[0]
        drawn = draws.next(got)
        if drawn is not None and (size > drawn or (draws.exact and size < drawn)):
            total = "" if draws.total is None else f" (then the pool has yielded {got + size} of {draws.total})"
            raise ValueError(
                f"batch {number} of the DataLoader is {describe(signature(inputs))}, a first dimension of {size} where "
                f"{drawn} samples were drawn{total}; expected a collate_fn that returns inputs [B, ...] and drops no sample"
            )
        got += size
        yield inputs


class _Draws:
    """How many samples a loader draws for each batch.

    Attributes:
        loader: what to iterate over: the loader, or one like it that keeps count of what its batch sampler draws.
        total: number of samples in all, where that is known.
        exact: whether a batch holds no fewer than are drawn for it.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader, self.exact = loader, not isinstance(loader.dataset, IterableDataset)
        self.limit = loader.batch_size
        self.total = promises.of_loader(loader).length if self.exact else None
        self.drawn: deque[int] | None = None
        if self.exact and loader.batch_sampler is not None and self.total is None and getattr(loader, "in_order", True):
            self.drawn = deque()
            self.loader = copy.copy(loader)
            own = vars(self.loader)  # which a loader does not let one set
            own["batch_sampler"] = _Recorded(loader.batch_sampler, self.drawn)
            own["_iterator"] = None

    def next(self, got: int) -> int | None:
        """Number of samples drawn for the next batch, after `got` samples; None where it is unknown."""
        if self.drawn is not None:
            return self.drawn.popleft() if self.drawn else None  # a loader of another kind may draw elsewhere
        if self.limit is None or self.total is None or got >= self.total:
            return self.limit
        return min(self.limit, self.total - got)


class _Recorded:
    """A batch sampler that tells how many indices it draws for each batch."""

    def __init__(self, sampler: Any, drawn: deque[int]) -> None:
        self.sampler, self.drawn = sampler, drawn

    def __iter__(self) -> Iterator[Any]:
        for indices in self.sampler:
            self.drawn.append(len(indices))
            yield indices

    def __len__(self) -> int:
        return len(self.sampler)


def _noted(items: Iterable[Any], note: str) -> Iterator[Any]:
    """The items; an error of theirs gets a note that says how many came before."""
    count = 0
    try:
        for item in items:
            yield item
            count += 1
    except Exception as error:
        add_note(error, note.format(count), "pool")
        raise_as_in_worker(error)
        raise


def _is_webloader(pool: Any) -> bool:
    return type(pool).__module__.partition(".")[0] == "webdataset" and type(pool).__name__ == "WebLoader"


def _open_webloader(pool: Any) -> Any:
    """WebDataset's WebLoader, which yields what the DataLoader in it yields, unless more stages follow that one."""
    if len(getattr(pool, "pipeline", ())) != 1:
        raise TypeError(
            "expected a WebLoader without stages of its own, which yields batches; got one with more stages, so that it may "
            "yield samples or batches: DataLoader(pool, batch_size=None) says batches, DataLoader(pool, batch_size=9) not"
        )
    return pool
