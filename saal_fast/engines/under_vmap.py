"""What a model's calls meet in a pass over many samples: replacements, and rescues where `vmap` itself refuses.

A call that `vmap` refuses is tried by other means, in this order:

1. It writes into a tensor that all samples share (`out = torch.zeros(...); out[:, 0] = x`). The pass begins again, and where
   the tensor was made, each sample gets its own (`Births`).
2. A rescue is registered for the function (`layers/base.py`: `register_rescue`).
3. It needs values (a number of repeats, say). Integers, booleans and single numbers among its arguments are asked for, as
   `.item()` asks: samples of the same values are scored together (`branches.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves, tree_map

from .._utils.failures import is_from_handler
from ..models import memory
from .batched import any_batched, bare, flag_of, is_batched, memories, memory_of, of_each
from .branches import value_for_all, values_of
from .layers import VmapReplacements, rescue_of
from .replacements.masks import row_of, takes_a_view, without_tensors

Site = tuple[CodeType, int]
"""A place in a model's code: where a call of it stands."""

NEEDS_VALUES = (
    ".item()",
    "data-dependent",
    "dynamic shape",
    "boolean mask",
    "stack expects each tensor to be equal size",
    "fallback path doesn't work on out= or view ops",
)
"""What torch's errors say where `vmap` cannot run a function because it needs values, or gives shapes by them."""


class Births:
    """Places in a model's code that make tensors which samples then write into.

    Args:
        sites: those known; empty for most models, whose passes cost nothing more. Further ones are added.

    Attributes:
        watching: whether passes keep account of where tensors are made, to find a further one.
        views: whether integers that are tensors are asked for in an index, whose view (`row = out[i]`) is written through.
    """

    def __init__(self, sites: set[Site]) -> None:
        self.sites = sites
        self.watching = False
        self.views = False


class SharedWrite(Exception):  # noqa: N818 - says what to do; not an error, where the pass begins again
    """A sample writes into a tensor that all share; where that is made has been added to `Births`."""


class Copy:
    """What is a view but for `vmap`.

    Attributes:
        base: identity of the memory that it would be a view of.
        stale: whether that has been written to since.
    """

    def __init__(self, tensor: Tensor, base: Tensor) -> None:
        self.storage = StorageWeakRef(bare(tensor).untyped_storage())  # type: ignore[no-untyped-call] # torch's own
        self.base = memory_of(base)
        self.stale = False

    def expired(self) -> bool:
        """Whether nothing holds the copy's memory any more."""
        return bool(self.storage.expired())  # type: ignore[no-untyped-call] # torch's own


class UnderVmap(VmapReplacements):
    """The outermost mode of a pass over many samples.

    Args:
        births: where tensors are made that samples write into.
    """

    def __init__(self, births: Births) -> None:
        super().__init__()
        self.births = births
        self.flag: Tensor | None = None
        self.made: dict[int, tuple[Site, Tensor]] = {}  # by a memory's identity, with what keeps that alive
        self.copies: dict[int | None, Copy] = {}
        self.inside = False  # whether the calls that come are a rescue's
        self.written: int | None = None  # a copy that was written to last, unless it was put back

    def see(self, sample: Any) -> None:
        """Takes the inputs of a sample, from which others get a sample's dimension."""
        if self.births.sites:
            self.flag = flag_of(next(t for t in tree_leaves(sample) if isinstance(t, Tensor)))

    def intercept(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """What the model gets from a call."""
        if self.copies and not self.inside:
            self._follow_copies(fn, args, kwargs)
        if fn is Tensor.__getitem__ and takes_a_view(args[1]):
            return self._view(*args)
        try:
            out = run()
        except RuntimeError as error:
            out = self._rescued(fn, args, kwargs, error)
        if self.births.sites or self.births.watching:
            out = self._born(args, kwargs, out)
        return out

    def _view(self, x: Tensor, index: Any) -> Tensor:
        """`x[index]`, which is a view but for `vmap`, that gathers where an integer is a sample's own."""
        row = None if self.births.views else row_of(x, index)
        if row is None:
            with self._rescuing():
                return x[without_tensors(index)]
        out = x[row.by].select(row.before, 0)
        self.copies = {memory: copy for memory, copy in self.copies.items() if not copy.expired()}
        self.copies[memory_of(out)] = Copy(out, x)
        return out

    def _follow_copies(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Has the pass begin again where what happens to a copy, or to what it was made of, would show in the other.

        `out[i] += 1` writes to a copy and puts it back at once, which is well.
        """
        read = memories((args, kwargs))
        back = fn is Tensor.__setitem__ and self.written in memories(args[2])
        stale = any(copy.stale for memory, copy in self.copies.items() if memory in read)
        if (self.written is not None and not back) or (stale and not back):
            self.births.views = True
            raise SharedWrite
        target = _target(fn, args, kwargs)
        into = None if target is None else memory_of(target)
        for copy in self.copies.values():
            copy.stale |= into is not None and copy.base == into
        self.written = into if into in self.copies else None

    def _rescued(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: RuntimeError) -> Any:
        if _from_elsewhere(error) or not any_batched(_without_slices((args, kwargs))):
            raise error
        target = _target(fn, args, kwargs)
        if target is not None and not is_batched(target):
            self._share_no_more(target, error)
        if target is not None and kwargs.get("out") is not None:
            with self._rescuing():
                made: Tensor = fn(*args, **{name: value for name, value in kwargs.items() if name != "out"})
                return target.copy_(made)
        if (rescue := rescue_of(fn)) is not None:
            with self._rescuing():
                out = rescue(*args, **kwargs)
            if out is not NotImplemented:
                return out
        if target is not None or not any(words in str(error) for words in NEEDS_VALUES):
            raise error
        return self._with_values(fn, args, kwargs, error)

    @contextmanager
    def _rescuing(self) -> Iterator[None]:
        """Within it, calls are intercepted as the model's are, but for what they do to copies."""
        before, self.inside = self.inside, True
        try:
            with self:
                yield
        finally:
            self.inside = before

    def _with_values(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: RuntimeError) -> Any:
        """What a function gives of values, those of its first argument only where it needs them too."""
        args, kwargs = (*args[:1], *tree_map(_known, args[1:])), tree_map(_known, kwargs)
        try:
            return fn(*args, **kwargs)
        except RuntimeError as again:
            if not args or _from_elsewhere(again):
                raise
        first = tree_map(_known, args[0])
        out = fn(first, *args[1:], **kwargs)
        if memories(first) & memories(out):  # a view, which the model may write through
            raise error
        return out

    def _share_no_more(self, target: Tensor, error: RuntimeError) -> None:
        """Has the pass begin again so that each sample has its own `target`."""
        births = self.births
        if births.watching:
            found = self.made.get(memory_of(target) or 0)
            if found is None or found[0] in births.sites:  # the model has had it before the pass
                raise error
            births.sites.add(found[0])
        births.watching = True
        raise SharedWrite

    def _born(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        """A call's outputs; of each sample its own, where the call stands at a known place."""
        given = memories((args, kwargs))
        fresh = [
            t for t in tree_leaves(out) if isinstance(t, Tensor) and not is_batched(t) and memory_of(t) not in {None, *given}
        ]
        if not fresh:
            return out
        site = _call_site()
        if site in self.births.sites and self.flag is not None:
            flag = self.flag
            return tree_map(lambda t: of_each(t, flag) if any(t is f for f in fresh) else t, out)
        if self.births.watching:
            for t in fresh:
                self.made.setdefault(memory_of(t) or 0, (site, t))
        return out


def _from_elsewhere(error: RuntimeError) -> bool:
    """Whether an error says nothing of `vmap`."""
    return memory.exhausted(error) or is_from_handler(error)


def _target(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The tensor that a call writes into; None for none."""
    out = kwargs.get("out")
    if isinstance(out, Tensor):
        return out
    name = getattr(fn, "__name__", "")
    writes = name in _WRITING or (name.endswith("_") and not name.endswith("__"))
    first = args[0] if args else kwargs.get("input")
    return first if writes and isinstance(first, Tensor) else None


_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
_WRITING = frozenset({"__setitem__", "__set__", *(f"__i{name}__" for name in _OPERATORS)})


def _known(value: Any) -> Any:
    """An argument whose values are asked for, where it is a tensor of numbers that no gradient passes through."""
    if not isinstance(value, Tensor) or not is_batched(value) or (value.ndim and value.is_floating_point()):
        return value
    return value_for_all(values_of(value))


def _without_slices(tree: Any) -> Any:
    """A pytree with the bounds of slices in place of these."""
    return tree_map(lambda v: (v.start, v.stop, v.step) if isinstance(v, slice) else v, tree)


def _call_site() -> Site:
    """Where the model's code, or torch's under it, makes the call that is intercepted."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        ("saal_fast.engines", "torch.overrides")
    ):
        frame = frame.f_back
    return frame.f_code, frame.f_lasti
