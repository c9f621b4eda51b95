"""What a model does in a pass beside reading its inputs and registered parameters, and how its passes stay one function.

`functional_call` replaces parameters where modules keep them as attributes. A model may reach them otherwise (a list of
tied weights, a closure), keep what a pass has computed, or draw random numbers. `study` (`study.py`) finds out once, on a
pool's first sample; most models do nothing of the kind, and their passes cost nothing more.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from .._utils.rng import REST, beside_others
from .batched import bare, outside


@dataclass(frozen=True)
class Habits:
    """What a model does beside reading inputs and registered parameters.

    Attributes:
        stand_ins: it reaches Parameter objects past its modules' attributes; they are replaced where they are a call's
            arguments.
        aliased: parameters whose memory it reads through other tensors, which nothing can replace: the real ones must move.
        keeps: what a pass changes in its modules; each pass starts from it as it was.
        writes: buffers that a pass writes into, by name: each pass is given copies, of each sample its own.
        inference: it runs parts in inference mode.
        draws: it draws random numbers in eval mode; whether it uses them, one sample cannot tell.
    """

    stand_ins: bool = False
    aliased: tuple[str, ...] = ()
    keeps: Kept | None = None
    writes: tuple[str, ...] = ()
    inference: bool = False
    draws: bool = False

    def reason_for_one_by_one(self) -> str | None:
        """Why a batch's samples must run one after the other; None where they need not."""
        if self.aliased:
            return f"it reads {', '.join(self.aliased[:3])} through tensors that share its memory and are no Parameter"
        if self.draws:
            return "its forward pass draws random numbers in eval mode, which each sample must see twice"
        return None


NO_HABITS = Habits()


class SlowPaths(TorchFunctionMode):
    """Within it, modules leave paths that have no gradient of their own.

    `nn.TransformerEncoder` leaves its fused path, which runs under no_grad alone; what a model runs in inference mode, whose
    tensors autograd refuses, runs under no_grad.

    Attributes:
        inference: whether anything has run in inference mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inference = False

    def __torch_function__(
        self, fn: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the call."""
        if not torch.is_inference_mode_enabled():
            return fn(*args, **(kwargs or {}))
        self.inference = True
        with torch.inference_mode(False), torch.no_grad():
            return fn(*args, **(kwargs or {}))


class StandIns(TorchFunctionMode):
    """Replaces tensors among the arguments of each call, known by their identity.

    Args:
        table: by the `id` of a tensor, the one that stands for it.
    """

    def __init__(self, table: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.table = table

    def __torch_function__(
        self, fn: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the call on what stands for its arguments."""
        kwargs = kwargs or {}
        if any(id(t) in self.table for t in tree_leaves((args, kwargs))):
            args, kwargs = tree_map(lambda t: self.table.get(id(t), t), (args, kwargs))
        return fn(*args, **kwargs)


class MemoryWatch(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own
    """Says which operations read the memory of some tensors, whatever object they read it through.

    Args:
        tensors: by name; several may share one storage.
        met: called with the names whose memory an operation reads.

    Attributes:
        batch_norm: whether torch's own batch norm has run.
        written: storages that an operation has written into, by their addresses in torch.
    """

    def __init__(self, tensors: Mapping[str, Tensor], met: Callable[[set[str]], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's own
        self.met = met
        self.batch_norm = False
        self.written: set[int] = set()
        self.spans: dict[int, list[tuple[int, int, str]]] = {}
        for name, t in tensors.items():
            if _has_memory(t):
                self.spans.setdefault(t.untyped_storage().data_ptr(), []).append((*_span(t), name))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operation."""
        kwargs = kwargs or {}
        names = self.names(tree_leaves((args, kwargs)))
        if names:
            self.met(names)
        batch_norm = "batch_norm" in func.name()
        self.batch_norm |= batch_norm
        if func._schema.is_mutable and not batch_norm:  # whose schema may say so in eval mode too
            given = {**dict(zip((a.name for a in func._schema.arguments), args, strict=False)), **kwargs}
            targets = [given.get(a.name) for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
            self.written |= {t.untyped_storage()._cdata for t in targets if isinstance(t, Tensor) and _has_memory(t)}
        return func(*args, **kwargs)

    def names(self, values: Iterable[Any]) -> set[str]:
        """The names of those tensors whose memory these values share."""
        found = set()
        for value in values:
            if isinstance(value, Tensor) and _has_memory(t := bare(value)):
                spans = self.spans.get(t.untyped_storage().data_ptr())
                if spans:
                    first, last = _span(t)
                    found |= {name for begin, end, name in spans if begin <= last and first <= end}
        return found


def _has_memory(t: Tensor) -> bool:
    return t.layout == torch.strided and t.numel() > 0 and not t.is_meta


def _span(t: Tensor) -> tuple[int, int]:
    """Addresses of a tensor's first and last number."""
    reach = sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
    return t.data_ptr(), t.data_ptr() + reach * t.element_size()


# --- what modules keep -----------------------------------------------------------------------------


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


class Kept:
    """What the modules of a model keep beside parameters: attributes, containers three levels deep, buffers.

    Args:
        cells: what is restored.
    """

    def __init__(self, cells: Iterable[_Container | _Tensor]) -> None:
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


def _cells(model: nn.Module) -> Iterator[_Container | _Tensor]:
    seen: set[int] = set()
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            yield from (_Tensor(t) for t in module.buffers(recurse=False))
            continue
        stack: list[tuple[Any, int]] = [(vars(module), 0)]
        while stack:
            value, depth = stack.pop()
            if id(value) in seen:
                continue
            if isinstance(value, dict | list | deque | set):
                seen.add(id(value))
                yield _Container.of(value)
                if depth < 3:
                    stack += [(v, depth + 1) for v in (value.values() if isinstance(value, dict) else value)]
            elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.layout == torch.strided:
                seen.add(id(value))
                yield _Tensor(value)


def _items(value: Any) -> list[Any]:
    return list(value.items()) if isinstance(value, dict) else list(value)


def _same(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) and all(map(_same, a, b)))


# --- random numbers --------------------------------------------------------------------------------


class Draws:
    """The generators a forward pass may draw from, as they are now.

    These are torch's global ones (the CPU's, a CUDA device's), Python's, NumPy's, and those that modules have as attributes.

    Args:
        model: whose attributes are searched.
        device: where the model runs; None for the modules' own generators alone.
    """

    def __init__(self, model: nn.Module, device: torch.device | None) -> None:
        self.generators = [*_own_generators(model), *(_shared_generators(device) if device else ())]
        self.states = [get() for get, _ in self.generators]

    def moved(self) -> bool:
        """Whether any has been drawn from since; beside other threads, one that does not move while this one rests."""
        now = [get() for get, _ in self.generators]
        ours = [not _equal(a, b) for a, b in zip(now, self.states, strict=True)]
        if any(ours) and beside_others():
            end = time.monotonic() + REST
            while any(ours) and time.monotonic() < end:
                time.sleep(REST / 10)
                ours = [o and _equal(get(), a) for o, (get, _), a in zip(ours, self.generators, now, strict=True)]
        return any(ours)

    def rewind(self) -> None:
        """Sets back those that have been drawn from since."""
        for (get, put), state in zip(self.generators, self.states, strict=True):
            if not _equal(get(), state):
                put(state)


Access = tuple[Callable[[], Any], Callable[[Any], Any]]
"""Functions that read and set a generator's state."""


def _shared_generators(device: torch.device) -> Iterator[Access]:
    yield torch.get_rng_state, torch.set_rng_state
    yield random.getstate, random.setstate
    yield np.random.get_state, np.random.set_state
    if device.type == "cuda":
        yield lambda: torch.cuda.get_rng_state(device), lambda state: torch.cuda.set_rng_state(state, device)


def _own_generators(model: nn.Module) -> Iterator[Access]:
    found = {
        id(value): value
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)
        for value in vars(module).values()
        if isinstance(value, torch.Generator | np.random.Generator | np.random.RandomState | random.Random)
    }
    for value in found.values():
        if isinstance(value, torch.Generator):
            yield value.get_state, value.set_state
        elif isinstance(value, np.random.Generator):
            yield (
                lambda bits=value.bit_generator: bits.state,  # type: ignore[misc]
                lambda state, bits=value.bit_generator: setattr(bits, "state", state),  # type: ignore[misc]
            )
        elif isinstance(value, np.random.RandomState):
            yield value.get_state, value.set_state
        else:
            yield value.getstate, value.setstate


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, dict):
        return all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple) and any(isinstance(v, np.ndarray) for v in a):
        return all(map(_equal, a, b))
    return bool(a == b)
