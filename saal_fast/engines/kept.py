"""What the modules of a model keep beside parameters, from which each pass starts as it was."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.held import held, is_array
from .batched import outside


@dataclass
class _Container:
    """A dict, list, deque or set, and what it holds."""

    value: Any
    items: list[Any]

    @classmethod
    def of(cls, value: Any) -> _Container:
        return cls(value, _items(value))

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

    def __post_init__(self) -> None:
        self.copy = self.value.detach().clone()

    def restore(self) -> bool:
        if self.value.shape == self.copy.shape:
            if torch.equal(self.value.detach(), self.copy):
                return False
            self.value.data.copy_(self.copy)
        else:
            self.value.data = self.copy.clone()
        return True


@dataclass
class _Array:
    """A NumPy array, and what it holds."""

    value: np.ndarray[Any, Any]
    copy: np.ndarray[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.copy = self.value.copy()

    def restore(self) -> bool:
        if self.value.tobytes() == self.copy.tobytes():
            return False
        np.copyto(self.value, self.copy)
        return True


class Kept:
    """What the modules of a model keep beside parameters: attributes, containers three levels deep, arrays, buffers.

    Args:
        cells: what is restored.
    """

    def __init__(self, cells: Iterable[_Container | _Tensor | _Array]) -> None:
        self.cells = list(cells)

    @classmethod
    def of(cls, model: nn.Module) -> Kept:
        """All that the modules keep now."""
        return cls(_cells(model))

    def tensors(self) -> list[Tensor]:
        """The tensors among it."""
        return [cell.value for cell in self.cells if isinstance(cell, _Tensor)]

    @torch.no_grad()
    def restore(self) -> Kept | None:
        """Puts everything back, and gives what had changed; None for nothing."""
        with outside():
            changed = [cell for cell in self.cells if cell.restore()]
        return Kept(changed) if changed else None


def _cells(model: nn.Module) -> Iterator[_Container | _Tensor | _Array]:
    seen: set[int] = set()
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            yield from (_Tensor(t) for t in module.buffers(recurse=False))
            continue
        yield _Container.of(vars(module))
        for value in held(module):
            if id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, dict | list | deque | set):
                yield _Container.of(value)
            elif is_array(value):
                yield _Array(value)
            elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.layout == torch.strided:
                yield _Tensor(value)


def _items(value: Any) -> list[Any]:
    return list(value.items()) if isinstance(value, dict) else list(value)


def _same(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) and all(map(_same, a, b)))
