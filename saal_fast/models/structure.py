"""How a model is built, as a value that can be compared: what was found of a model holds while this stays the same."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, torch.dtype, torch.device, torch.Size)
MOST_ITEMS = 64
"""Items of a container that are compared; of a longer one, its identity and length."""


def structure_of(model: nn.Module) -> tuple[Any, ...]:
    """Modules with their classes, hooks and settings, and which parameters they share; not the values of any tensor.

    Settings are a module's attributes, those of the objects that it keeps as attributes (a configuration), and what is in
    their containers. A hashable value; equal ones mean that the model does the same to its inputs, as far as attributes say.
    """
    seen: dict[int, int] = {}
    modules = tuple(
        (name, type(module), tuple(_settings(vars(module), seen)))
        for name, module in model.named_modules(remove_duplicate=False)
        if not isinstance(module, torch.jit.ScriptModule)
    )
    places: dict[int, int] = {}
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    weights = tuple(
        (name, places.setdefault(id(t), len(places)), t.requires_grad, t.shape, t.dtype, t.device) for name, t in tensors
    )
    return modules, weights


def _settings(attributes: dict[str, Any], seen: dict[int, int]) -> Iterator[tuple[str, Any]]:
    for name, value in attributes.items():
        if name not in ("_parameters", "_buffers", "_modules"):
            yield name, _value(value, seen)


def _value(value: Any, seen: dict[int, int]) -> tuple[Any, ...]:
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, Tensor):
        return Tensor, value.shape, value.dtype
    if isinstance(value, MethodType):  # made anew whenever it is asked for
        return MethodType, id(value.__self__), id(value.__func__)
    if isinstance(value, nn.Module | type | FunctionType | ModuleType):
        return type(value), id(value)
    if id(value) in seen:
        return "seen", seen[id(value)]
    seen[id(value)] = len(seen)
    return type(value), *_content(value, seen)


def _content(value: Any, seen: dict[int, int]) -> Iterable[Any]:
    """What is in a container or an object; the identity of one that hides it, or is long."""
    if isinstance(value, dict):
        items = [item for pair in value.items() for item in pair]
    elif isinstance(value, set | frozenset):
        items = sorted(value, key=repr)
    elif isinstance(value, list | tuple | deque):
        items = list(value)
    else:
        return _settings(vars(value), seen) if hasattr(value, "__dict__") else [id(value)]
    return [id(value), len(items)] if len(items) > MOST_ITEMS else [_value(item, seen) for item in items]
