"""Checks the arguments of `kmeans_plusplus` and converts them to what the compiled code reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from .uniforms import as_integer

Array: TypeAlias = "Tensor | np.ndarray[Any, Any]"
Points: TypeAlias = "Array | tuple[Array, Array]"
First = Literal["random", "argmax"]
Algorithm = Literal["auto", "plain", "rejection", "sorted"]

_FIRSTS, _ALGORITHMS = frozenset(get_args(First)), frozenset(get_args(Algorithm))
_USED_AS_THEY_ARE = frozenset({np.dtype(np.float32), np.dtype(np.float64)})
_EXACT_IN_FLOAT32 = {torch.bool, torch.int8, torch.uint8, torch.int16, torch.uint16}
_INTEGERS = _EXACT_IN_FLOAT32 | {torch.int32, torch.int64, torch.uint32, torch.uint64}


@dataclass(frozen=True)
class Data:
    """Checked arguments.

    Attributes:
        x: Rows [N, D], float32 or float64, columns next to each other; h of a pair (a, h).
        left: a [N, C], of the same type; None for plain rows.
        weights: float64 [N] on the CPU; None for ones.
        initial: Indices of rows chosen before.
    """

    x: Tensor
    left: Tensor | None
    weights: Tensor | None
    initial: list[int]

    def __len__(self) -> int:
        return int(self.x.shape[0])


def as_data(x: Points, weights: Array | None, initial: Array | list[int] | None) -> Data:
    """Checks types and shapes; the code that reads the values checks those.

    Raises:
        TypeError: x isn't of dense real numbers, weights aren't numbers, or initial aren't whole numbers.
        ValueError: Shapes don't fit, or x is empty.
    """
    left = None
    if isinstance(x, tuple):
        if len(x) != 2:
            raise ValueError(f"expected x as one array or a pair (a, h), got {len(x)} of them")
        left, rows = _as_rows(x[0], "a"), _as_rows(x[1], "h")
        if left.shape[0] != rows.shape[0]:
            raise ValueError(f"expected a and h of as many rows, got {left.shape[0]} and {rows.shape[0]}")
        if left.device != rows.device:
            raise ValueError(f"expected a and h on one device, got {left.device} and {rows.device}")
        if left.dtype != rows.dtype:
            left, rows = left.double(), rows.double()
    else:
        rows = _as_rows(x, "x")
    return Data(
        rows,
        left,
        None if weights is None else _as_weights(weights, rows.shape[0]),
        [] if initial is None else _as_initial(initial),
    )


def as_count(k: SupportsIndex, n: int) -> int:
    """Converts k to an int in [1, n].

    Raises:
        TypeError: k is no integer.
        ValueError: k is out of range.
    """
    count = as_integer("k", k, "an integer")
    if not 1 <= count <= n:
        raise ValueError(f"expected 1 <= k <= {n} (the number of rows), got k={count}")
    return count


def check_options(first: str, algorithm: str) -> None:
    """Raises ValueError for an unknown first or algorithm."""
    if first not in _FIRSTS:
        raise ValueError(f"expected first='random' or 'argmax', got {first!r}")
    if algorithm not in _ALGORITHMS:
        raise ValueError(f"expected algorithm='auto', 'plain', 'rejection' or 'sorted', got {algorithm!r}")


def _as_rows(x: Array, name: str) -> Tensor:
    """Checks x and returns it as float32 or float64 [N, D], columns next to each other in memory."""
    if isinstance(x, np.ndarray):
        x = _as_tensor(x, name)
    if not isinstance(x, Tensor):
        raise TypeError(f"expected {name} to be a tensor or a NumPy array, got {type(x).__name__}")
    if x.layout != torch.strided:
        raise TypeError(f"expected {name} to be dense, got {x.layout}")
    if x.ndim not in (1, 2):
        raise ValueError(f"expected {name} of shape [N] or [N, D], got {list(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"expected {name} of at least one row and one column, got {list(x.shape)}")
    dtype = x.dtype
    if dtype in _INTEGERS:
        dtype = torch.float32 if dtype in _EXACT_IN_FLOAT32 else torch.float64
    elif dtype.is_floating_point:
        dtype = torch.float64 if dtype == torch.float64 else torch.float32
    else:
        raise TypeError(f"expected {name} of real numbers, got {dtype}")
    rows = x if dtype == x.dtype and not x.requires_grad else x.detach().to(dtype)
    if rows.ndim == 1:
        rows = rows[:, None]
    return rows if rows.shape[1] == 1 or rows.stride(1) == 1 else rows.contiguous()


def _as_tensor(x: np.ndarray[Any, Any], name: str) -> Tensor:
    """A tensor that shares the array's memory if its byte order, alignment and strides allow that, else a copy."""
    if x.dtype not in _USED_AS_THEY_ARE or not x.flags.carray:
        if not np.issubdtype(x.dtype, np.number) and x.dtype != np.bool_:
            raise TypeError(f"expected {name} of real numbers, got a NumPy array of dtype {x.dtype}")
        x = x.astype(x.dtype.newbyteorder("="), copy=False)
        if not x.flags.aligned or any(stride < 0 or stride % x.itemsize for stride in x.strides):
            x = x.copy()
        if not x.flags.writeable:
            x = np.asarray(_Writable(x))
    try:
        return torch.from_numpy(x)
    except TypeError as error:
        raise TypeError(f"expected {name} of real numbers, got a NumPy array of dtype {x.dtype}") from error


class _Writable:
    """Presents a read-only array, such as a mapped file, as writable, so that torch does not warn; nothing writes to it."""

    def __init__(self, x: np.ndarray[Any, Any]) -> None:
        self.x = x
        interface = x.__array_interface__
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}


def _tensor(name: str, values: Array | list[int]) -> Tensor:
    """Converts weights or initial rows to a tensor; arrays of any byte order and layout are copied."""
    if isinstance(values, Tensor):
        return values.to_dense() if values.layout != torch.strided else values
    try:
        array = np.array(values)
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected {name} as numbers, an array or a tensor of them; got {type(values).__name__}") from error


def _as_weights(weights: Array, n: int) -> Tensor:
    rows = _tensor("weights", weights)
    if rows.dtype.is_complex or rows.shape != (n,):
        raise ValueError(f"expected weights as real numbers [{n}], one for each row, got {rows.dtype} {list(rows.shape)}")
    return rows.detach().to("cpu", torch.float64).contiguous()


def _as_initial(initial: Array | list[int]) -> list[int]:
    rows = _tensor("initial", initial)
    if rows.numel() == 0:
        return []
    if rows.ndim != 1 or rows.dtype not in _INTEGERS - {torch.bool}:
        raise TypeError(f"expected initial as numbers of rows [M], got {rows.dtype} {list(rows.shape)}")
    chosen = [int(row) for row in rows.tolist()]
    if max(chosen) > torch.iinfo(torch.int64).max:
        raise ValueError(f"expected initial as numbers of rows, got {max(chosen)}")
    return chosen
