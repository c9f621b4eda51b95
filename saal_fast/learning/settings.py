"""The settings of a run, by which a learner knows that a folder holds its own run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .jsonable import to_jsonable

if TYPE_CHECKING:
    from .phases import Phases


def run_settings(phases: Phases, seed: int, start: Any, more: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings that every learner of a run must share.

    Args:
        phases: what the run computes.
        seed: the run's seed.
        start: positions and labels to begin with, or how many samples to ask for first.
        more: the user's own settings, or None.

    Raises:
        TypeError: the user's settings have a type that JSON lacks.
    """
    stored = phases.ledger.store.folder is not None
    return {
        "pool": phases.ledger.size,
        "strategy": phases.strategy.name,
        "k": phases.k,
        "candidates": phases.candidates,
        "warm_start": phases.warm_start,
        "seed": seed,
        "start": start if isinstance(start, int) else hashlib.sha256(json.dumps(start).encode()).hexdigest(),
        "strategy_options": _simple_fields(phases.strategy),
        "training": _simple_fields(phases.train),
        "pool_sha256": _pool_sha256(phases.pool) if stored else None,
        "more": None if more is None else _user_settings(more),
    }


def _user_settings(more: Mapping[str, Any]) -> Any:
    """The user's settings as they will be read from a file."""
    if not isinstance(more, Mapping):
        raise TypeError(f"expected settings to be a mapping, got {type(more).__name__}")
    try:
        return to_jsonable(json.loads(json.dumps(more)))
    except (TypeError, ValueError) as error:
        raise TypeError(f"expected settings of numbers, strings, lists and mappings of these: {error}") from error


def _simple_fields(thing: Any) -> dict[str, Any] | None:
    """The fields of a dataclass instance that JSON can hold, except `progress`; None for another object."""
    if not is_dataclass(thing):
        return None
    found = {}
    for one in fields(thing):
        value = getattr(thing, one.name, None)
        if not one.init or one.name == "progress":
            continue
        if isinstance(value, dict):
            value = {
                k: v for k, v in value.items() if k != "progress" and isinstance(v, (bool, int, float, str, type(None)))
            }
        if isinstance(value, (bool, int, float, str, list, tuple, dict, type(None))):
            found[one.name] = value
    return dict(to_jsonable(json.loads(json.dumps(found, default=str))))


def _pool_sha256(pool: Any) -> str | None:
    """SHA-256 of a tensor's bytes and shape; None for another kind of pool."""
    if not isinstance(pool, Tensor) or pool.layout != torch.strided:
        return None
    data = pool.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(f"{pool.dtype} {list(pool.shape)}".encode() + data.tobytes()).hexdigest()
