"""What a learner refuses before anything is trained."""

from __future__ import annotations

from typing import Any

from torch import nn

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
