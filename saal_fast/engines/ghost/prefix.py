"""What a model computes before it first uses a parameter to perturb: the same in both passes, and so computed once.

The first pass records its calls to torch, in their order, up to the first whose output may depend on a parameter to perturb.
The second pass runs the model's code again, and takes each recorded call's output instead of making the call. Of a frozen
backbone with a head to perturb, the usual case where labels are few, only the head then runs twice.

A call is known again by its function and arguments: tensors by where they come from, all else by value. A value of another
type ends the record. At its end only those tensors are kept that the model still holds: no later call can use others. Code
that torch's function modes don't see may; the second pass then fails, and both run from the beginning.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..problem import EngineError

Key = tuple[Any, ...]
"""What makes a value equal to another: its type, and its value or its items' keys."""

PERTURBED: Key = ("parameter to perturb",)

PLAIN = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        type(...),
        torch.dtype,
        torch.device,
        torch.layout,
        torch.memory_format,
    }
)
"""Types whose values are compared."""


BECOMES = frozenset(
    {Tensor.requires_grad_, Tensor.requires_grad.__set__, Tensor.detach_}  # type: ignore[attr-defined] # an attribute of C
)
"""Functions that may exchange a tensor for another (`layers/graph.py`), which torch refuses to weak references."""


class PrefixError(EngineError):
    """The second pass did not begin as the first."""


class Call(NamedTuple):
    """A call to torch: its function, and the keys of arguments and output."""

    fn: Any
    given: Key
    out: Key


class Prefix:
    """The calls of a sample's first pass before any that may depend on a parameter to perturb.

    Args:
        perturbed: the parameters to perturb, as the first pass has them.

    Attributes:
        calls: those recorded.
        kept: the tensors that further calls may use. Who runs the first pass inside a transform of `torch.func` hands them
            out of it, and sets them to what they are outside.
    """

    def __init__(self, perturbed: Iterable[Tensor]) -> None:
        self.calls: list[Call] = []
        self.kept: list[Tensor] = []
        self._places: dict[int, int] = {}  # by number, where a tensor is among those kept
        self._perturbed = {id(p) for p in perturbed}
        self._made: list[weakref.ref[Tensor]] = []  # by number
        self._shapes: list[tuple[torch.Size, torch.dtype]] = []  # by number
        self._numbers: dict[int, int] = {}  # by id
        self._others: list[Tensor] = []  # alive, so that each has an id of its own
        self._versions: list[int] = []
        self._open, self._busy = True, False

    def call(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Makes a call of the first pass by `run`."""
        if not self._open or self._busy:
            return run()
        if fn in BECOMES:
            self._close()
            return run()
        given = _key_of((args, kwargs), self._given)
        self._busy = True
        try:
            out = run()
        finally:
            self._busy = False
        made = None if given is None else _key_of(out, self._output)
        if given is None or made is None or (_has(given, PERTURBED) and _has_tensor(made)):
            self._close()
        elif not _has(given, PERTURBED) and (
            _has_tensor(given) or _has_tensor(made)
        ):  # else it may be there for what it sets
            self.calls.append(Call(fn, given, made))
        return out

    def finish(self) -> None:
        """Ends the pass. Where it wrote over something kept, the second pass must compute everything again."""
        self._close()
        if [t._version for t in self.kept] != self._versions:
            self.calls, self.kept, self._places = [], [], {}

    def tensor(self, number: int) -> Tensor:
        """A recorded tensor; one without values for one that no further call can use."""
        place = self._places.get(number)
        if place is not None:
            return self.kept[place]
        shape, dtype = self._shapes[number]
        return torch.empty(shape, dtype=dtype, device="meta")  # what uses it all the same fails, or gives no values either

    def _close(self) -> None:
        if self._open:
            self._open = False
            for number, ref in enumerate(self._made):
                t = ref()
                if t is not None:
                    self._places[number] = len(self.kept)
                    self.kept.append(t)
            self._versions = [t._version for t in self.kept]
            self._made.clear()

    def _given(self, t: Tensor) -> Key:
        if id(t) in self._perturbed:
            return PERTURBED
        number = self._number(t)
        if number is not None:
            return Tensor, number
        self._others.append(t)
        return Tensor, "other", id(t)

    def _output(self, t: Tensor) -> Key | None:
        if t.requires_grad:
            return None
        number = self._number(t)  # of one that the call has written over
        if number is None:
            number = self._numbers[id(t)] = len(self._made)
            self._made.append(weakref.ref(t))
            self._shapes.append((t.shape, t.dtype))
        return Tensor, number

    def _number(self, t: Tensor) -> int | None:
        number = self._numbers.get(id(t))
        return number if number is not None and self._made[number]() is t else None


class Replay:
    """The second pass over the calls of a `Prefix` that is finished.

    Args:
        prefix: what the first pass recorded.
        perturbed: the parameters to perturb, as the second pass has them.
    """

    def __init__(self, prefix: Prefix, perturbed: Iterable[Tensor]) -> None:
        self.prefix = prefix
        self._perturbed = {id(p) for p in perturbed}
        self._tensors: dict[int, Tensor] = {}  # by number
        self._numbers: dict[int, int] = {}  # by id
        self._at, self._busy = 0, False

    def call(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Gives a call's output, from the record or by `run`.

        Raises:
            PrefixError: another call was recorded here.
        """
        if self._busy or self._at == len(self.prefix.calls):
            return run()
        recorded, given = self.prefix.calls[self._at], _key_of((args, kwargs), self._given)
        if (recorded.fn, recorded.given) == (fn, given):
            self._at += 1
            return _value_of(recorded.out, self._output)
        if given is None or (_has_tensor(given) and not _has(given, PERTURBED)):
            raise PrefixError(f"the second pass called {fn} where the first called {recorded.fn}")
        self._busy = True
        try:
            return run()
        finally:
            self._busy = False

    def _given(self, t: Tensor) -> Key:
        if id(t) in self._perturbed:
            return PERTURBED
        number = self._numbers.get(id(t))
        return (Tensor, "other", id(t)) if number is None else (Tensor, number)

    def _output(self, number: int) -> Tensor:
        if number not in self._tensors:
            t = self._tensors[number] = self.prefix.tensor(number)
            self._numbers[id(t)] = number
        return self._tensors[number]


def _key_of(value: Any, of_tensor: Callable[[Tensor], Key | None]) -> Key | None:
    """A value's key, its tensors' by `of_tensor`; None where it can't be known again."""
    if isinstance(value, Tensor):
        return of_tensor(value)
    kind = type(value)
    if kind in PLAIN:
        return kind, value
    if kind is slice:
        items: Any = (value.start, value.stop, value.step)
    elif kind is dict:
        items = [item for pair in value.items() for item in pair]
    elif kind in (tuple, list, torch.Size) or kind.__module__ == "torch.return_types":
        items = value
    else:
        return None
    keys = [_key_of(item, of_tensor) for item in items]
    return None if None in keys else (kind, *keys)


def _value_of(key: Key, tensor: Callable[[int], Tensor]) -> Any:
    """The value of an output's key."""
    kind, *items = key
    if kind is Tensor:
        return tensor(items[0])
    if kind in PLAIN:
        return items[0]
    values = [_value_of(item, tensor) for item in items]
    if kind is slice:
        return slice(*values)
    return dict(zip(values[::2], values[1::2], strict=True)) if kind is dict else kind(values)


def _has_tensor(key: Key) -> bool:
    return key is not PERTURBED and (key[0] is Tensor or (key[0] not in PLAIN and any(map(_has_tensor, key[1:]))))


def _has(key: Key, part: Key) -> bool:
    return key is part or (
        key[0] is not Tensor and key[0] not in PLAIN and any(_has(k, part) for k in key[1:] if type(k) is tuple)
    )
