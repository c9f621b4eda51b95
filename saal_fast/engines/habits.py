"""What a model does in a pass beside reading its inputs and registered parameters, and how its passes stay one function.

`functional_call` replaces parameters where modules keep them as attributes. A model may reach them otherwise (a list of
tied weights, a closure), keep what a pass has computed, or draw random numbers. `study` (`study.py`) finds out once, on a
pool's first sample; most models do nothing of the kind, and their passes cost nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from .batched import bare
from .kept import Kept


@dataclass(frozen=True)
class Habits:
    """What a model does beside reading inputs and registered parameters.

    Attributes:
        stand_ins: it reaches Parameter objects past its modules' attributes; they are replaced where they are a call's
            arguments.
        aliased: parameters whose memory it reads through other tensors, which nothing can replace: the real ones must move.
        identified: it does otherwise where other tensors stand in for its Parameter objects; then all are `aliased`.
        keeps: what a pass changes in its modules, and in objects that these hold; each pass starts from it as it was.
        untouched: what else its modules hold, which no pass has changed so far; None where that is not looked after.
        writes: buffers that a pass writes into, by name: each pass is given copies, of each sample its own.
        inference: it runs parts in inference mode.
        draws: the generators that it draws from in eval mode (`Draws.moved`); whether it uses that, one sample cannot tell.
        own_backward: code of its own (`torch.autograd.Function`, hooks) runs in its backward pass, which need not be linear
            in the gradients that come in (clamped gradients).
        sees_nodes: modules have backward hooks of the old kind (`register_backward_hook`), which are given what the nodes of
            plain autograd's graph are given.
        differentiates: it takes gradients in its forward pass (forces, from an energy).
    """

    stand_ins: bool = False
    aliased: tuple[str, ...] = ()
    identified: bool = False
    keeps: Kept | None = None
    untouched: Kept | None = None
    writes: tuple[str, ...] = ()
    inference: bool = False
    draws: frozenset[str] = frozenset()
    own_backward: bool = False
    sees_nodes: bool = False
    differentiates: bool = False

    def reason_for_one_by_one(self) -> str | None:
        """Why a batch's samples must run one after the other; None where they need not."""
        if self.identified:
            return "it does otherwise where other tensors stand in for its Parameter objects (it knows them by id(), say)"
        if self.aliased:
            return f"it reads {', '.join(self.aliased[:3])} through tensors that share its memory and are no Parameter"
        if self.draws:
            return "its forward pass draws random numbers in eval mode, which each sample must see twice"
        if self.sees_nodes:
            return "its hooks of register_backward_hook see plain autograd's nodes (register_full_backward_hook's do not)"
        return None


NO_HABITS = Habits()


_HOOKING = frozenset({Tensor.register_hook, Tensor.grad_fn.__get__})  # type: ignore[union-attr] # an attribute of C
"""How code comes to put a hook on a gradient, by a tensor or by its node."""


class SlowPaths(TorchFunctionMode):
    """Within it, modules leave paths that have no gradient of their own.

    `nn.TransformerEncoder` leaves its fused path, which runs under no_grad alone; what a model runs in inference mode, whose
    tensors autograd refuses, runs under no_grad.

    Attributes:
        inference: whether anything has run in inference mode.
        hooked: whether a tensor may have been given a hook on its gradient.
        differentiates: whether gradients have been taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inference = self.hooked = self.differentiates = False

    def __torch_function__(
        self, fn: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the call."""
        self.hooked |= fn in _HOOKING
        self.differentiates |= fn is torch.autograd.grad
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
        views: whether making a view counts as reading.

    Attributes:
        batch_norm: whether torch's own batch norm has run.
        written: storages that an operation has written into, by their addresses in torch.
    """

    def __init__(self, tensors: Mapping[str, Tensor], met: Callable[[set[str]], None], *, views: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's own
        self.met, self.views = met, views
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
        if names and (self.views or not func.is_view):
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
    """Whether a tensor has memory of its own; what function transforms within a model wrap tensors in has none."""
    if torch._C._functorch.is_functorch_wrapped_tensor(t) or t._is_zerotensor():
        return False
    return t.layout == torch.strided and t.numel() > 0 and not t.is_meta


def _span(t: Tensor) -> tuple[int, int]:
    """Addresses of a tensor's first and last number."""
    reach = sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
    return t.data_ptr(), t.data_ptr() + reach * t.element_size()
