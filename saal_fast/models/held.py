"""What modules hold in their attributes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DEPTH = 3
"""Levels of containers in a module's attributes that are looked into."""


def held(module: nn.Module, *, objects: bool = False) -> Iterator[Any]:
    """The values of a module's attributes, and what containers among them hold, three levels deep; each object once.

    Args:
        module: a ScriptModule holds nothing that Python sees.
        objects: whether objects of other classes are looked into as containers are.
    """
    level: list[Any] = [] if isinstance(module, torch.jit.ScriptModule) else list(vars(module).values())
    seen: set[int] = set()
    for _ in range(DEPTH + 1):
        inner: list[Any] = []
        for value in level:
            if id(value) not in seen:
                seen.add(id(value))
                yield value
                inner += _items(value, objects)
        level = inner


def is_array(value: Any) -> bool:
    """Whether a value is a NumPy array in memory that can be written to."""
    return type(value) is np.ndarray and value.flags.writeable


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object that is no module, tensor, class or function."""
    opaque = nn.Module | Tensor | type | ModuleType | FunctionType | MethodType
    attributes = {} if isinstance(value, opaque) else getattr(value, "__dict__", {})
    return attributes if isinstance(attributes, dict) else {}


def _items(value: Any, objects: bool) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | deque | set):
        return value
    return attributes_of(value).values() if objects else ()
