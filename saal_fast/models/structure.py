"""How a model is built, as a value that can be compared: what was found of a model holds while this stays the same."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from .._utils.identity import identity_of

PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, torch.dtype, torch.device, torch.Size)
MOST_ITEMS = 1000
"""Items of a container that are compared; of a longer one, its identity and length."""


def structure_of(model: nn.Module) -> tuple[Any, ...]:
    """Modules with their classes, hooks and settings, and which parameters they share; not the values of any tensor.

    Settings are a module's attributes, those of the objects that it keeps as attributes (a configuration), and what is in
    their containers. A hashable value; equal ones mean that the model does the same to its inputs, as far as attributes say.
    """
    modules = list(model.modules())
    numbers = {id(module): i for i, module in enumerate(modules)}
    places: dict[int, int] = {}
    seen: dict[int, int] = {}
    return tuple((type(m), *_parts(m, numbers, places), *_settings(m, seen)) for m in modules)


def _parts(module: nn.Module, numbers: dict[int, int], places: dict[int, int]) -> Iterator[Any]:
    """A module's children and tensors by name, with which ones they are among those of the model."""
    for name, child in module._modules.items():
        yield name, None if child is None else numbers[id(child)]
    for name, t in (*module._parameters.items(), *module._buffers.items()):
        place = places.setdefault(id(t), len(places))
        yield (name, None) if t is None else (name, place, t.requires_grad, t.shape, t.dtype, t.device)


def _settings(holder: Any, seen: dict[int, int]) -> Iterator[tuple[str, Any]]:
    """The attributes of a module, or of an object that one keeps."""
    if not isinstance(holder, torch.jit.ScriptModule):
        for name, value in vars(holder).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                yield name, _value(value, seen)


def _value(value: Any, seen: dict[int, int]) -> tuple[Any, ...]:
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, Tensor):
        return Tensor, value.shape, value.dtype
    if isinstance(value, MethodType):  # made anew whenever it is asked for
        return MethodType, identity_of(value.__self__), identity_of(value.__func__)
    if isinstance(value, nn.Module | type | FunctionType | ModuleType):
        return type(value), identity_of(value)
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
        return _settings(value, seen) if hasattr(value, "__dict__") else [identity_of(value)]
    return [identity_of(value), len(items)] if len(items) > MOST_ITEMS else [_value(item, seen) for item in items]
