"""Pools: whatever holds the unlabelled samples, read once, in order, in batches on a device.

A pool of any kind becomes a stream of *chunks*, and chunks are split and merged into batches. A chunk is a
dict of tensors that share their first dimension: an `int` key is a positional input of the model, a `str` key
a keyword.

    tensor, array, mapping of these    one chunk, sliced
    Dataset, IterableDataset, list     one chunk a sample; all samples have one shape
    DataLoader                         one chunk a batch; shapes may differ from batch to batch

`_inputs` tells inputs from labels: the first element of a tuple or list is the input; in a mapping all keys but `LABEL_KEYS`
are inputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from .batch import Batch
from .transfer import DirectCopy, copy_to

LABEL_KEYS = frozenset({"label", "labels", "label_ids", "target", "targets", "y"})
"""Keys of a mapping that name labels; they never reach the model."""

Chunk = dict[int | str, torch.Tensor]
Signature = dict[int | str, tuple[tuple[int, ...], torch.dtype]]


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
        self.length, chunks = _open(pool)
        self._copy = copy_to(device)
        self._chunks = (chunk for chunk in chunks if _size(chunk) > 0)
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

        Batches are full except the last and, of a `DataLoader`, those before a change of shape.

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
        for chunk in chunks:
            if held and _signature(held[0], skip=1) != _signature(chunk, skip=1):
                yield _batch(held, start, self._copy)
                start, held, count = start + count, [], 0
            taken, available = 0, _size(chunk)
            while taken < available:
                stop = min(available, taken + size - count)
                held.append(_slice(chunk, taken, stop))
                taken, count = stop, count + stop - taken
                if count == size:
                    yield _batch(held, start, self._copy)
                    start, held, count = start + count, [], 0
        if held:
            yield _batch(held, start, self._copy)

    def _refuse_second_pass(self) -> None:
        if self._begun:
            raise RuntimeError("a Stream is one pass over its pool, and it has begun; open another")


# --- from a pool to chunks ------------------------------------------------------------------------


def _open(pool: Any) -> tuple[int | None, Iterator[Chunk]]:
    if isinstance(pool, torch.Tensor | np.ndarray | Mapping):
        columns = _inputs(pool, "the pool")
        return _common_size(columns, "the pool"), iter([columns])
    if isinstance(pool, DataLoader):
        return _loader_length(pool), _from_loader(pool)
    if isinstance(pool, IterableDataset):
        return _length(pool), _from_items(pool)
    sized = hasattr(pool, "__len__") and hasattr(pool, "__getitem__")
    if sized and not isinstance(pool, str | bytes):
        length = len(pool)
        return length, _from_items(pool[index] for index in range(length))
    hint = ""
    if isinstance(pool, Iterator):
        hint = "; an iterator would be used up by scoring, so make a list of it"
    elif isinstance(pool, Iterable) and not isinstance(pool, str | bytes):
        hint = "; an IterableDataset says that it yields samples, a DataLoader that it yields batches"
    raise TypeError(
        "expected a pool that is a tensor, an array, a mapping of tensors, a dataset with __len__ and "
        "__getitem__, an IterableDataset, a DataLoader or a list of samples; got "
        f"{_type_name(pool)}{hint}"
    )


def _from_items(items: Iterable[Any]) -> Iterator[Chunk]:
    first: Signature | None = None
    for index, item in enumerate(items):
        inputs = _inputs(item, f"sample {index} of the pool")
        signature = _signature(inputs)
        if first is None:
            first = signature
        elif signature != first:
            raise ValueError(
                f"samples differ: sample 0 of the pool is {_describe(first)}, sample {index} of the pool is "
                f"{_describe(signature)}; pad or resize them, or bring a DataLoader with a collate_fn that pads"
            )
        yield {key: tensor.unsqueeze(0) for key, tensor in inputs.items()}


def _from_loader(loader: DataLoader[Any]) -> Iterator[Chunk]:
    # Scores are matched to samples by position, so a collate_fn that drops samples, or whose output is no
    # batch (a list of samples), is an error. Of map-style datasets it is known how many samples were drawn,
    # of iterable ones how many at most.
    limit, exact = loader.batch_size, not isinstance(loader.dataset, IterableDataset)
    left = _loader_length(loader) if exact else None
    for number, batch in enumerate(loader):
        where = f"batch {number} of the DataLoader"
        inputs = _inputs(batch, where)
        size = _common_size(inputs, where)
        drawn = limit if limit is None or left is None else min(limit, left)
        if drawn is not None and (size > drawn or (left is not None and size < drawn)):
            raise ValueError(
                f"{where} is {_describe(_signature(inputs))}, a first dimension of {size} where {drawn} samples "
                "were drawn; expected a collate_fn that returns inputs [B, ...] and drops no sample"
            )
        left = None if left is None else left - size
        yield inputs


def _loader_length(loader: DataLoader[Any]) -> int | None:
    if loader.batch_size is None:  # a batch_sampler of the user's own, or a dataset that batches by itself
        return None
    if isinstance(loader.dataset, IterableDataset):
        return None if loader.drop_last else _length(loader.dataset)
    length = _length(loader.sampler)
    return length - length % loader.batch_size if length is not None and loader.drop_last else length


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except (TypeError, NotImplementedError):  # how torch's datasets and samplers say that they do not know
        return None


# --- from a sample, a batch or a whole pool to tensors --------------------------------------------


def _inputs(value: Any, where: str) -> Chunk:
    if isinstance(value, tuple | list):
        if not value:
            raise ValueError(f"{where} is an empty {_type_name(value)}; expected an input first in it")
        if isinstance(value, list) and all(_is_numeric(part) for part in value):
            raise TypeError(
                f"{where} is a list of plain numbers, which may be one input or an input and its label; "
                "expected a tensor, or a tuple (input, label)"
            )
        value = value[0]
    inputs: Chunk
    if isinstance(value, Mapping):
        kept = {key: part for key, part in value.items() if key not in LABEL_KEYS}
        for key in kept:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; expected names of keyword inputs")
        inputs = {key: _tensor(part, f"{where}, input {key!r},") for key, part in kept.items()}
    elif isinstance(value, tuple | list) and not _is_numeric(value):
        inputs = {index: _tensor(part, f"{where}, input {index},") for index, part in enumerate(value)}
    else:
        inputs = {0: _tensor(value, where)}
    if not inputs:
        raise ValueError(f"{where} holds no input (the keys {sorted(LABEL_KEYS)} are labels)")
    return inputs


def _is_numeric(value: Any) -> bool:
    """Whether `value` is a number or begins, at whatever depth, with one."""
    while isinstance(value, tuple | list) and value:
        value = value[0]
    return isinstance(value, Number | np.bool_)


def _tensor(value: Any, where: str) -> torch.Tensor:
    hint = " (of an image: a transform such as torchvision's ToTensor; of a text: a tokenizer)"
    try:
        if isinstance(value, torch.Tensor) and value.layout == torch.strided:
            return value.detach()
        if isinstance(value, np.ndarray):
            return _from_numpy(value)
        if _is_numeric(value):
            return torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        hint = f" ({error})"
    raise TypeError(f"{where} is {_type_name(value)}; expected a dense tensor, an array or numbers{hint}")


def _from_numpy(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor that shares the memory of `array` where torch can: no strides below zero, native byte order."""
    if min(array.strides, default=0) < 0 or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    with warnings.catch_warnings():  # of read-only memory: batches are copies, so nothing writes to it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array)


# --- chunks ---------------------------------------------------------------------------------------


def _size(chunk: Chunk) -> int:
    return next(iter(chunk.values())).shape[0]


def _common_size(inputs: Chunk, where: str) -> int:
    if len({tensor.shape[:1] for tensor in inputs.values()}) > 1 or any(t.ndim == 0 for t in inputs.values()):
        raise ValueError(f"expected inputs that share their first dimension; {where} is {_describe(_signature(inputs))}")
    return _size(inputs)


def _slice(chunk: Chunk, start: int, stop: int) -> Chunk:
    return {key: tensor[start:stop] for key, tensor in chunk.items()}


def _batch(parts: list[Chunk], start: int, copy: DirectCopy) -> Batch:
    copy.begin()
    with torch.inference_mode(False):
        whole = {key: copy([part[key] for part in parts]) for key in parts[0]}
    args = tuple(tensor for key, tensor in whole.items() if isinstance(key, int))
    kwargs = {key: tensor for key, tensor in whole.items() if isinstance(key, str)}
    return Batch(args, kwargs, _size(whole), start)


def _signature(inputs: Chunk, skip: int = 0) -> Signature:
    return {key: (tuple(tensor.shape[skip:]), tensor.dtype) for key, tensor in inputs.items()}


def _describe(signature: Signature) -> str:
    parts = []
    for key, (shape, dtype) in signature.items():
        name = "" if list(signature) == [0] else f"{key}: "
        parts.append(f"{name}{list(shape)} {str(dtype).removeprefix('torch.')}")
    return ", ".join(parts)


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
