"""From a sample, a batch or a whole pool to a chunk of tensors.

`inputs_of` tells inputs from labels: the first element of a tuple or list is the input; in a mapping all keys but
`LABEL_KEYS` are inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch

from .._utils.arrays import from_numpy
from .mends import is_words, mend, of_columns, type_name

LABEL_KEYS = frozenset({"label", "labels", "label_ids", "target", "targets", "y"})
"""Keys of a mapping that name labels; they never reach the model."""

Chunk = dict[int | str, torch.Tensor]
"""Tensors that share their first dimension: an `int` key is a positional input of the model, a `str` key a keyword."""
Signature = dict[int | str, tuple[tuple[int, ...], torch.dtype]]


def inputs_of(value: Any, where: str) -> Chunk:
    """The inputs in a sample, a batch or a pool, without labels.

    Args:
        value: what the pool holds.
        where: its name in messages.

    Raises:
        TypeError: it is no input for a model; the message says what to make of it.
        ValueError: it holds no input.
    """
    if isinstance(value, tuple | list):
        if not value:
            raise ValueError(f"{where} is an empty {type_name(value)}; expected an input first in it")
        if isinstance(value, list) and all(_is_numeric(part) for part in value):
            raise TypeError(
                f"{where} is a list of plain numbers, which may be one input or an input and its label; "
                "expected a tensor, or a tuple (input, label)"
            )
        value = value[0]
    inputs: Chunk
    if isinstance(value, Mapping):
        inputs = _keywords(value, where)
    elif isinstance(value, tuple | list) and not _is_numeric(value):
        inputs = {index: _tensor(part, f"{where}, input {index},") for index, part in enumerate(value)}
    else:
        inputs = {0: _tensor(value, where)}
    if not inputs:
        raise ValueError(f"{where} holds no input (the keys {sorted(LABEL_KEYS)} are labels)")
    return inputs


def size_of(chunk: Chunk) -> int:
    """Number of samples."""
    return next(iter(chunk.values())).shape[0]


def common_size(inputs: Chunk, where: str) -> int:
    """Number of samples.

    Raises:
        ValueError: the inputs do not share their first dimension.
    """
    if len({tensor.shape[:1] for tensor in inputs.values()}) > 1 or any(t.ndim == 0 for t in inputs.values()):
        raise ValueError(f"expected inputs that share their first dimension; {where} is {describe(signature(inputs))}")
    return size_of(inputs)


def signature(inputs: Chunk, skip: int = 0) -> Signature:
    """Shapes, from dimension `skip` on, and types."""
    return {key: (tuple(tensor.shape[skip:]), tensor.dtype) for key, tensor in inputs.items()}


def describe(found: Signature) -> str:
    """Shapes and types for messages."""
    parts = []
    for key, (shape, dtype) in found.items():
        name = "" if list(found) == [0] else f"{key}: "
        parts.append(f"{name}{list(shape)} {str(dtype).removeprefix('torch.')}")
    return ", ".join(parts)


def _keywords(value: Mapping[Any, Any], where: str) -> Chunk:
    kept = {key: part for key, part in value.items() if key not in LABEL_KEYS}
    for key in kept:
        if not isinstance(key, str):
            raise TypeError(f"{where} has the key {key!r}; expected names of keyword inputs")
    words = [key for key, part in kept.items() if is_words(part)]
    hint = of_columns(kept.keys() - words, words) if words else None
    return {key: _tensor(part, f"{where}, input {key!r},", hint if key in words else None) for key, part in kept.items()}


def _is_numeric(value: Any) -> bool:
    """Whether `value` is a number or begins, at whatever depth, with one."""
    while isinstance(value, tuple | list) and value:
        value = value[0]
    return isinstance(value, Number | np.bool_)


def _tensor(value: Any, where: str, hint: str | None = None) -> torch.Tensor:
    reason = ""
    try:
        if isinstance(value, torch.Tensor) and value.layout == torch.strided and not (value.is_nested or value.is_quantized):
            return value.detach()
        if isinstance(value, np.ndarray):
            return from_numpy(value)
        if _is_numeric(value):
            return torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        reason = f" ({error})"
        if isinstance(value, tuple | list):
            hint = "pad lists of different lengths, as a tokenizer's padding=True does"
    hint = mend(value) if hint is None else hint
    raise TypeError(f"{where} is {type_name(value)}; expected a dense tensor, an array or numbers{reason} ({hint})")
