"""Content of records as strict JSON (RFC 8259), which lacks NaN and infinity: here null, "Infinity", "-Infinity"."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def plain(content: Any) -> Any:
    """What `spell` can write of numbers, strings, None, lists and mappings: numbers that JSON lacks replaced."""
    if isinstance(content, float) and not math.isfinite(content):
        return None if math.isnan(content) else "Infinity" if content > 0 else "-Infinity"
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    return content


def spell(content: Any) -> str:
    """One line of strict JSON.

    Raises:
        TypeError: JSON cannot hold it.
        ValueError: it holds a NaN or infinity.
    """
    return json.dumps(content, sort_keys=True, allow_nan=False)


def number(value: float | str | None) -> float:
    """A number that `plain` may have replaced."""
    return math.nan if value is None else float(value)


def numbers(values: Mapping[str, float | str | None]) -> dict[str, float]:
    """Numbers by name that `plain` may have replaced."""
    return {name: number(value) for name, value in values.items()}
