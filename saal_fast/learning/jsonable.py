"""Content of records as strict JSON (RFC 8259), which lacks NaN and infinity: here null, "Infinity", "-Infinity"."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def to_jsonable(content: Any) -> Any:
    """Converts numbers, strings, None, lists and mappings of these to what `dumps` takes, NaN and infinities too."""
    if isinstance(content, float) and not math.isfinite(content):
        return None if math.isnan(content) else "Infinity" if content > 0 else "-Infinity"
    if isinstance(content, Mapping):
        return {str(key): to_jsonable(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [to_jsonable(value) for value in content]
    return content


def dumps(content: Any) -> str:
    """One line of strict JSON, keys sorted.

    Raises:
        TypeError: content has a type that JSON lacks.
        ValueError: content holds NaN or infinity.
    """
    return json.dumps(content, sort_keys=True, allow_nan=False)


def to_float(value: float | str | None) -> float:
    """The number that `to_jsonable` converted."""
    return math.nan if value is None else float(value)


def to_floats(values: Mapping[str, float | str | None]) -> dict[str, float]:
    """The numbers by name that `to_jsonable` converted."""
    return {name: to_float(value) for name, value in values.items()}
