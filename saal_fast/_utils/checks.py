"""Checks of arguments that several rooms share."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

from torch import Tensor


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python or of NumPy; True and False are none."""
    if isinstance(value, (bool, Tensor)):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def check_choice(name: str, value: Any, choices: Collection[str | None]) -> None:
    """Raises ValueError unless the value of argument `name` is one of the choices."""
    if value not in choices:
        raise ValueError(f"expected {name} to be one of {', '.join(map(repr, choices))}; got {value!r}")
