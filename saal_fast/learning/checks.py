"""What a learner refuses before anything is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._utils.checks import is_whole
from ..strategies import Strategy
from .plain import plain

if TYPE_CHECKING:
    from .phases import Phases


def check_counts(size: int, k: Any, initial: Any, candidates: Any) -> None:
    """Raises where a count is none, or does not go with the others and the pool's size.

    Raises:
        TypeError: one is no whole number.
        ValueError: one is out of range.
    """
    for name, count in {"k": k, "initial": initial, "candidates": candidates}.items():
        if count is None and name != "k":
            continue
        if not is_whole(count):
            raise TypeError(f"expected {name} to be a whole number, got {count!r}")
        if count < 1:
            raise ValueError(f"expected {name} >= 1, got {count}")
    if candidates is not None and candidates < k:
        raise ValueError(f"expected candidates >= k={k}, which are chosen from them; got {candidates}")
    if initial is not None and initial > size:
        raise ValueError(f"expected initial <= {size}, the size of the pool; got {initial}")


def check_parts(model: Any, strategy: Any, train: Any, evaluate: Any) -> None:
    """Raises where one of the loop's parts cannot be called as it will be.

    Raises:
        TypeError: it is of another type.
    """
    if isinstance(model, nn.Module) or not callable(model):
        raise TypeError(f"expected model to be a function that makes a model, got {type(model).__name__}")
    if isinstance(strategy, type) or not isinstance(strategy, (str, Strategy)):
        raise TypeError(f"expected strategy to be a name, or an object with select and training; got {strategy!r}")
    for name, function in {"train": train, "evaluate": evaluate}.items():
        if function is not None and (isinstance(function, type) or not callable(function)):
            raise TypeError(f"expected {name} to be a function or None, got {function!r}")


def check_options(warm_start: Any, rewrite_settings: Any, labelled: Any, initial: Any, keep_models: Any) -> None:
    """Raises where an option is none, or both ways to begin are given, or neither.

    Raises:
        TypeError: warm_start or rewrite_settings is no flag, or labelled no pair.
        ValueError: the others are not as expected.
    """
    for name, flag in {"warm_start": warm_start, "rewrite_settings": rewrite_settings}.items():
        if not isinstance(flag, bool):
            raise TypeError(f"expected {name} to be True or False, got {flag!r}")
    if (labelled is None) == (initial is None):
        raise ValueError("expected either labelled, to begin with, or initial, how many to ask for first")
    if labelled is not None and not (isinstance(labelled, (tuple, list)) and len(labelled) == 2):
        raise TypeError(f"expected labelled to be a pair, positions and their labels; got {type(labelled).__name__}")
    if labelled is not None and not len(labelled[0]):
        raise ValueError("expected at least one label to begin with; initial asks for some that are drawn")
    if keep_models not in ("last", "all"):
        raise ValueError(f"expected keep_models to be 'last' or 'all', got {keep_models!r}")


def settings_of(phases: Phases, seed: int, start: Any, more: Mapping[str, Any] | None) -> dict[str, Any]:
    """What all who go on with a run must agree on.

    Args:
        phases: what the run computes.
        seed: of every draw.
        start: positions and labels to begin with, or how many to ask for first.
        more: the user's own settings, or None.

    Raises:
        TypeError: JSON cannot hold the user's settings.
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
        "strategy_options": plain_fields(phases.strategy),
        "training": plain_fields(phases.train),
        "pool_sha256": digest(phases.pool) if stored else None,
        "more": None if more is None else _spelled(more),
    }


def _spelled(more: Mapping[str, Any]) -> Any:
    """The user's settings, as they come back from a file."""
    if not isinstance(more, Mapping):
        raise TypeError(f"expected settings to be a mapping, got {type(more).__name__}")
    try:
        return plain(json.loads(json.dumps(more)))
    except (TypeError, ValueError) as error:
        raise TypeError(f"expected settings of numbers, strings, lists and mappings of these: {error}") from error


def plain_fields(thing: Any) -> dict[str, Any] | None:
    """The fields of a dataclass's object that JSON can hold, but `progress`; None of anything else."""
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
    return dict(plain(json.loads(json.dumps(found, default=str))))


def digest(pool: Any) -> str | None:
    """SHA-256 of a tensor's bytes and shape; None of a pool of another kind."""
    if not isinstance(pool, Tensor) or pool.layout != torch.strided:
        return None
    data = pool.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(f"{pool.dtype} {list(pool.shape)}".encode() + data.tobytes()).hexdigest()
