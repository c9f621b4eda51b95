"""NumPy arrays as tensors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch


def from_numpy(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor that shares the memory of `array` where torch can: no strides below zero, native byte order.

    Raises:
        TypeError: torch has no such type of numbers, or the array hides some of them behind a mask.
    """
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise TypeError("some of its numbers are masked; put numbers in their place, as array.filled(0) does")
    if min(array.strides, default=0) < 0 or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    with warnings.catch_warnings():  # of read-only memory: what is made of it is copied, so nothing writes to it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array)


def as_tensor(value: Any) -> torch.Tensor:
    """As `torch.as_tensor`, for arrays of any strides and byte order, and for columns of frames in the order of their rows.

    Raises:
        TypeError: `value` is no array of numbers; ValueError and RuntimeError likewise, as torch has it.
    """
    if not isinstance(value, torch.Tensor) and hasattr(value, "to_numpy"):  # a pandas Series indexes by name
        value = value.to_numpy()
    if isinstance(value, torch.Tensor):
        return value
    return from_numpy(value) if isinstance(value, np.ndarray) else torch.as_tensor(value, device="cpu")
