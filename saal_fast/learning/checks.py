"""What a learner refuses before anything is trained."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..scoring import is_whole
from ..strategies import Strategy


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
    return dict(json.loads(json.dumps(found, default=str)))


def digest(pool: Any) -> str | None:
    """SHA-256 of a tensor's bytes and shape; None of a pool of another kind."""
    if not isinstance(pool, Tensor) or pool.layout != torch.strided:
        return None
    data = pool.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(f"{pool.dtype} {list(pool.shape)}".encode() + data.tobytes()).hexdigest()
