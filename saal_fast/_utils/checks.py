"""Argument checks that several rooms share; the messages say what was expected and what came."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number of Python or NumPy; True, False and tensors are not."""
    if isinstance(value, (bool, Tensor)):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def check_whole(name: str, value: Any, least: int | None = None) -> None:
    """Raises unless argument `name` is a whole number, `least` or more.

    Raises:
        TypeError: it is not a whole number.
        ValueError: it is less than `least`.
    """
    if not is_whole(value):
        raise TypeError(f"expected {name} to be a whole number, got {value!r} ({type(value).__name__})")
    if least is not None and value < least:
        raise ValueError(f"expected {name} >= {least}, got {value}")


def check_flag(name: str, value: Any) -> None:
    """Raises TypeError unless argument `name` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"expected {name} to be True or False, got {value!r}")


def check_choice(name: str, value: Any, choices: Collection[str | bool | None]) -> None:
    """Raises ValueError unless argument `name` is one of the choices, of the same type: 0 is not False."""
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        raise ValueError(f"expected {name} to be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_device(value: Any) -> None:
    """Raises unless `device` is None, a `torch.device`, or a device's name or number.

    Raises:
        TypeError: it is of another type.
        ValueError: no device has this name or number.
    """
    if value is None or isinstance(value, torch.device):
        return
    expected = 'expected device to be None, a torch.device or its name, such as "cuda:0"'
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise TypeError(f"{expected}; got {value!r} ({type(value).__name__})")
    try:
        torch.device(value)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{expected}; got {value!r}") from error


def check_batch_size(value: Any) -> None:
    """Raises ValueError unless `batch_size` is "auto" or a number of samples."""
    if not (isinstance(value, str) and value == "auto") and (not is_whole(value) or value < 1):
        raise ValueError(f'expected batch_size to be "auto" or a whole number >= 1, got {value!r}')
