"""Which object a value is, also after others have been freed: `id` is given to further objects then."""

from __future__ import annotations

import weakref
from itertools import count
from typing import Any

_numbers = count()
_known: dict[int, tuple[weakref.ref[Any], int]] = {}


def identity_of(value: object) -> tuple[str, int]:
    """A value that no other object has or ever will have; its `id`, where Python gives no weak reference to it.

    Args:
        value: is not kept alive.
    """
    key = id(value)
    known = _known.get(key)
    if known is not None and known[0]() is value:
        return "object", known[1]
    try:
        reference = weakref.ref(value, lambda gone: _known.pop(key) if _known.get(key, (None,))[0] is gone else None)
    except TypeError:
        return "id", key
    number = next(_numbers)
    _known[key] = reference, number
    return "object", number
