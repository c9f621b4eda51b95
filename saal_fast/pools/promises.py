"""How many samples a pool says that it yields. Scores are matched to samples by position, so a pool must keep to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from .inputs import Chunk, size_of

SECONDS_TO_COUNT = 1.0
"""How long the rest of a pool that yields too much is counted, for the message."""


@dataclass(frozen=True)
class Promise:
    """What a pool says of its length.

    Attributes:
        least: fewest samples; None where it cannot say.
        most: most samples; None where it cannot say.
        said_by: what says it, for messages.
        chunks: whether these are numbers of batches.
        either: whether they may be numbers of samples as well, as of a dataset that makes batches by itself.
        hint: what may be wrong where it does not hold.
    """

    least: int | None = None
    most: int | None = None
    said_by: str = "its len()"
    chunks: bool = False
    either: bool = False
    hint: str = ""

    @property
    def length(self) -> int | None:
        """Number of samples, where exactly one is possible."""
        return self.least if self.least == self.most and not self.chunks else None

    def held(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Yields the chunks.

        Raises:
            ValueError: there are more or fewer samples than promised; the message names both counts.
        """
        samples = number = 0
        for chunk in chunks:
            samples, number = samples + size_of(chunk), number + 1
            if self.most is not None and (number if self.chunks else samples) > self.most:
                raise self._broken(*_count(chunks, samples, number), "more")
            yield chunk
        kept = self.least is None or (number if self.chunks else samples) >= self.least
        if not kept and not (self.either and samples == self.least):
            raise self._broken(samples, number, "")

    def _broken(self, samples: int, number: int, more: str) -> ValueError:
        kind = "batches" if self.chunks else "samples"
        got = f"{number} batches, {samples} samples" if self.chunks else f"{samples}"
        promised = str(self.most if more else self.least)
        if self.least is not None and self.most is not None and self.least != self.most:
            promised = f"{self.least} to {self.most}"
        return ValueError(f"expected {promised} {kind} of the pool, as {self.said_by} says; it yields {got}{self.hint}")


def length_of(sized: Any) -> int | None:
    """The length of a thing that may not know it."""
    try:
        return len(sized)
    except (TypeError, NotImplementedError, ValueError, AttributeError):  # how libraries' classes say that they do not know
        return None


def of_items(pool: Any) -> Promise:
    """The promise of an `IterableDataset`."""
    length = length_of(pool)
    return Promise(length, length, "its len()")


def of_loader(loader: DataLoader[Any]) -> Promise:
    """The promise of a `DataLoader`."""
    if isinstance(loader.dataset, IterableDataset):
        return _of_iterable_loader(loader)
    ends = "; does the data set raise StopIteration, or is that length another?"
    if loader.batch_size is None:  # a batch_sampler of the user's own, or a dataset that batches by itself
        sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
        length = length_of(sampler)
        return Promise(length, length, f"len() of its {type(sampler).__name__}", chunks=True, hint=ends)
    length = length_of(loader.sampler)
    if length is not None and loader.drop_last:
        length -= length % loader.batch_size
    return Promise(length, length, f"len() of its {type(loader.sampler).__name__}", hint=ends)


def _of_iterable_loader(loader: DataLoader[Any]) -> Promise:
    length, said_by, workers = length_of(loader.dataset), "len() of its data set", loader.num_workers
    hint = ""
    if workers > 1:
        hint = (
            f"; each of {workers} workers yields all of an IterableDataset, unless it takes a share by "
            "torch.utils.data.get_worker_info()"
        )
    if length is None or loader.batch_size is None:
        return Promise(length, length, said_by, chunks=True, either=True, hint=hint)
    least = length
    if loader.drop_last:  # each worker drops the rest of its own share
        least = max(0, length - workers * (loader.batch_size - 1)) if workers > 1 else length - length % loader.batch_size
    return Promise(least, length if workers > 1 else least, said_by, hint=hint)


def _count(chunks: Iterator[Chunk], samples: int, number: int) -> tuple[int, int]:
    end = time.monotonic() + SECONDS_TO_COUNT
    for chunk in chunks:
        samples, number = samples + size_of(chunk), number + 1
        if time.monotonic() > end:
            break
    return samples, number
