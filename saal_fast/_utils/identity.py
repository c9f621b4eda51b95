"""Which object a value is, also after others have been freed: `id` is given to further objects then."""

from __future__ import annotations

import weakref
from contextlib import suppress
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


class ByObject(Generic[T]):
    """Values by object, also by objects that have no hash; it keeps no object alive.

    A value is let go at the next `put` after its object. No Python code runs when an object goes: what a signal's handler
    raises within such code is lost.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[_Reference, T]] = {}
        self._gone: list[weakref.ref[object]] = []

    def get(self, key: object) -> T | None:
        """The object's value, or None."""
        entry = self._entries.get(id(key))
        return entry[1] if entry is not None and entry[0]() is key else None

    def put(self, key: object, value: T) -> T:
        """Keeps a value for an object, and returns it.

        Raises:
            TypeError: Python gives no weak reference to the object.
        """
        reference = _Reference(key, self._gone.append)
        reference.number = id(key)
        with suppress(IndexError):
            while True:
                gone = self._gone.pop()
                if isinstance(gone, _Reference) and self._entries.get(gone.number, (None,))[0] is gone:
                    del self._entries[gone.number]
        self._entries[id(key)] = reference, value
        return value


class _Reference(weakref.ref[object]):
    __slots__ = ("number",)
    number: int


_numbers = count()
_known: ByObject[int] = ByObject()


def identity_of(value: object) -> tuple[str, int]:
    """A value that no other object has or ever will have; its `id`, where Python gives no weak reference to it.

    Args:
        value: is not kept alive.
    """
    known = _known.get(value)
    if known is not None:
        return "object", known
    try:
        return "object", _known.put(value, next(_numbers))
    except TypeError:
        return "id", id(value)
