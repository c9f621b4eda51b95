"""Pools: whatever holds the unlabelled samples, read once, in order, in batches on a device.

A pool of any kind becomes a stream of *chunks* (`sources.py`), and chunks are split and merged into batches. A chunk is a
dict of tensors that share their first dimension (`inputs.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch

from .batch import Batch
from .inputs import Chunk, signature, size_of
from .sources import open_pool
from .transfer import DirectCopy, copy_to


class Stream:
    """One pass over a pool.

    Batches own their memory: a model that changes its input in place never changes the pool. They
    carry no autograd history and are no inference tensors, whatever the pool holds.

    Args:
        pool: A tensor or array `[N, ...]`; a mapping of these with one N; a dataset with `__len__` and
            `__getitem__`; an `IterableDataset`; a `DataLoader`; a list or tuple of samples. A sample is `x`,
            `(x, y, ...)` or a mapping, and `x` is a tensor, an array, a number, numbers in a list, a tuple of
            these (positional inputs) or a mapping (keyword inputs). Labels are ignored. Whatever a
            `DataLoader` yields is taken for a batch.
        device: Where batches go.

    Attributes:
        length: Number of samples the pool says it has; None where it cannot say.

    Raises:
        TypeError: The pool is none of these.
        ValueError: The tensors of a mapping differ in N.
    """

    def __init__(self, pool: Any, device: torch.device) -> None:
        self.length, chunks = open_pool(pool)
        self._copy = copy_to(device)
        self._chunks = (chunk for chunk in chunks if size_of(chunk) > 0)
        self._first: Chunk | None = None
        self._begun = False

    def peek(self) -> Batch | None:
        """The first sample as a batch of one, which stays in the stream; None when the pool is empty.

        Raises:
            RuntimeError: The pass has begun, so the first sample is gone.
            TypeError: The sample is no input for a model.
            ValueError: The sample belongs to a batch that is inconsistent.
        """
        self._refuse_second_pass()
        if self._first is None:
            self._first = next(self._chunks, None)
        if self._first is None:
            return None
        return _batch([_slice(self._first, 0, 1)], 0, self._copy)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yields the whole pool, in order, in batches of at most `size`.

        Batches are full except the last and, of a `DataLoader`, those before a change of shape. Where the pool raises an
        error, the samples before it come first, and then that error.

        Raises:
            RuntimeError: The stream was read before.
            TypeError: A sample is no input for a model; the message names it.
            ValueError: `size` is less than one, or samples do not fit each other; the message names them.
        """
        if size < 1:
            raise ValueError(f"expected a batch size of at least 1, got {size}")
        self._refuse_second_pass()
        self._begun = True
        first, self._first = self._first, None
        return self._rebatch(chain([] if first is None else [first], self._chunks), size)

    def _rebatch(self, chunks: Iterable[Chunk], size: int) -> Iterator[Batch]:
        start, count = 0, 0
        held: list[Chunk] = []
        failed: list[Exception] = []
        for chunk in _until_error(chunks, failed):
            if held and signature(held[0], skip=1) != signature(chunk, skip=1):
                yield _batch(held, start, self._copy)
                start, held, count = start + count, [], 0
            taken, available = 0, size_of(chunk)
            while taken < available:
                stop = min(available, taken + size - count)
                held.append(_slice(chunk, taken, stop))
                taken, count = stop, count + stop - taken
                if count == size:
                    yield _batch(held, start, self._copy)
                    start, held, count = start + count, [], 0
        if held:
            yield _batch(held, start, self._copy)
        if failed:
            raise failed.pop()  # no name here keeps it, so that no circle keeps its frames

    def _refuse_second_pass(self) -> None:
        if self._begun:
            raise RuntimeError("a Stream is one pass over its pool, and it has begun; open another")


def _until_error(chunks: Iterable[Chunk], failed: list[Exception]) -> Iterator[Chunk]:
    try:
        yield from chunks
    except Exception as error:
        failed.append(error)


def _slice(chunk: Chunk, start: int, stop: int) -> Chunk:
    return {key: tensor[start:stop] for key, tensor in chunk.items()}


def _batch(parts: list[Chunk], start: int, copy: DirectCopy) -> Batch:
    copy.begin()
    with torch.inference_mode(False):
        whole = {key: copy([part[key] for part in parts]) for key in parts[0]}
    args = tuple(tensor for key, tensor in whole.items() if isinstance(key, int))
    kwargs = {key: tensor for key, tensor in whole.items() if isinstance(key, str)}
    return Batch(args, kwargs, size_of(whole), start)
