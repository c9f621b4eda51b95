"""What the modules of a model, and objects that they hold, keep beside parameters; each pass starts from it as it was."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.held import attributes_of, held, is_array
from .batched import outside


@dataclass
class _Container:
    """A dict, list, deque or set, and what it holds.

    Attributes:
        watched: whether it is looked at after each batch; objects of other classes than modules may change by others' doing.
    """

    value: Any
    watched: bool = True
    items: list[Any] = field(init=False)
    values: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.items = _items(self.value)
        self.values = list(self.value.values() if isinstance(self.value, dict) else self.value)

    def touched(self) -> bool:
        now = self.value.values() if isinstance(self.value, dict) else self.value
        return len(now) != len(self.values) or not all(map(is_, now, self.values))

    def restore(self) -> bool:
        now = _items(self.value)
        if len(now) == len(self.items) and all(map(_same, now, self.items)):
            return False
        if isinstance(self.value, dict):
            self.value.update(self.items)
            for key in self.value.keys() - dict(self.items).keys():
                del self.value[key]
        elif isinstance(self.value, list):
            self.value[:] = self.items
        else:
            self.value.clear()
            self.value.update(self.items) if isinstance(self.value, set) else self.value.extend(self.items)
        return True


@dataclass
class _Tensor:
    """A tensor, and what its memory holds; kernels that write over it need not count a version."""

    value: Tensor
    copy: Tensor = field(init=False)
    version: int = field(init=False)

    def __post_init__(self) -> None:
        self.copy, self.version = self.value.detach().clone(), _version(self.value)

    def touched(self) -> bool:
        return _version(self.value) != self.version

    def restore(self) -> bool:
        if self.value.shape == self.copy.shape:
            if torch.equal(self.value.detach(), self.copy):
                self.version = _version(self.value)
                return False
            self.value.data.copy_(self.copy)
        else:
            self.value.data = self.copy.clone()
        self.version = _version(self.value)
        return True


@dataclass
class _Array:
    """A NumPy array, and what it holds."""

    value: np.ndarray[Any, Any]
    copy: np.ndarray[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.copy = self.value.copy()

    def touched(self) -> bool:
        return self.value.tobytes() != self.copy.tobytes()

    def restore(self) -> bool:
        if self.value.tobytes() == self.copy.tobytes():
            return False
        np.copyto(self.value, self.copy)
        return True


Cell = _Container | _Tensor | _Array


class Kept:
    """What the modules of a model keep beside parameters: attributes, containers three levels deep, arrays, buffers.

    Args:
        cells: what is restored.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self.cells = list(cells)

    @classmethod
    def of(cls, model: nn.Module, *, objects: bool = False) -> Kept:
        """All that the modules keep now; with `objects` also attributes and containers of objects that they hold."""
        return cls(_cells(model, objects))

    @classmethod
    def watched(cls, model: nn.Module) -> Kept:
        """What is watched of it: all but the parts and hooks of modules."""
        return cls(_cells(model, False, parts=False))

    def of_modules(self, but: Kept | None) -> Kept:
        """What the modules themselves hold, but for what another one restores."""
        theirs = {id(cell.value) for cell in but.cells} if but else set()
        own = (cell for cell in self.cells if not isinstance(cell, _Container) or cell.watched)
        return Kept(cell for cell in own if id(cell.value) not in theirs)

    def joined(self, other: Kept | None) -> Kept:
        """What either restores."""
        return Kept([*self.cells, *(other.cells if other else ())])

    def touched(self) -> bool:
        """Whether anything may have changed; writes that count no version (`.data`, NumPy's) are not seen."""
        return any(cell.touched() for cell in self.cells)

    def tensors(self) -> list[Tensor]:
        """The tensors among it."""
        return [cell.value for cell in self.cells if isinstance(cell, _Tensor)]

    @torch.no_grad()
    def restore(self) -> Kept | None:
        """Puts everything back, and gives what had changed; None for nothing."""
        with outside():
            changed = [cell for cell in self.cells if cell.restore()]
        return Kept(changed) if changed else None


_TORCHS = frozenset(vars(nn.Module())) - {"_buffers"}
"""Attributes by which torch keeps a module's parts and hooks; no pass changes them of itself."""


def _cells(model: nn.Module, objects: bool, parts: bool = True) -> Iterator[Cell]:
    seen: set[int] = set()
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            yield from (_Tensor(t) for t in module.buffers(recurse=False))
            continue
        yield _Container(vars(module))
        torchs = {id(value) for name, value in vars(module).items() if name in _TORCHS}
        seen |= set() if parts else torchs
        for value in held(module):
            if id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, dict | list | deque | set):
                yield _Container(value, watched=id(value) not in torchs)
            elif is_array(value):
                yield _Array(value)
            elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.layout == torch.strided:
                yield _Tensor(value)
    for value in (v for m in model.modules() for v in held(m, objects=True)) if objects else ():
        if id(value) not in seen and isinstance(value, dict | list | deque | set):
            seen.add(id(value))
            yield _Container(value, watched=False)
        elif (attributes := attributes_of(value)) and id(attributes) not in seen:
            seen.add(id(attributes))
            yield _Container(attributes, watched=False)


def _items(value: Any) -> list[Any]:
    return list(value.items()) if isinstance(value, dict) else list(value)


def _version(t: Tensor) -> int:
    return 0 if t.is_inference() else t._version


def _same(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) and all(map(_same, a, b)))
