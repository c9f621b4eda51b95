"""Checks of a learner's arguments, before anything is trained."""

from __future__ import annotations

from typing import Any

from torch import nn

from .._utils.checks import check_flag, check_whole
from ..strategies import Strategy


def check_counts(size: int, k: Any, initial: Any, candidates: Any) -> None:
    """Checks the counts against each other and the pool's size.

    Raises:
        TypeError: a count is not a whole number.
        ValueError: a count is out of range.
    """
    for name, count in {"k": k, "initial": initial, "candidates": candidates}.items():
        if count is not None or name == "k":
            check_whole(name, count, 1)
    if candidates is not None and candidates < k:
        raise ValueError(f"expected candidates >= k={k}, which are chosen from them; got {candidates}")
    if initial is not None and initial > size:
        raise ValueError(f"expected initial <= {size}, the size of the pool; got {initial}")


def check_parts(model: Any, strategy: Any, train: Any, evaluate: Any) -> None:
    """Checks that the functions and the strategy can be called.

    Raises:
        TypeError: one of them is of another type.
    """
    if isinstance(model, nn.Module) or not callable(model):
        raise TypeError(f"expected model to be a function that makes a model, got {type(model).__name__}")
    if isinstance(strategy, type) or not isinstance(strategy, (str, Strategy)):
        raise TypeError(f"expected strategy to be a name, or an object with select and training; got {strategy!r}")
    for name, function in {"train": train, "evaluate": evaluate}.items():
        if function is not None and (isinstance(function, type) or not callable(function)):
            raise TypeError(f"expected {name} to be a function or None, got {function!r}")


def check_options(warm_start: Any, rewrite_settings: Any, labelled: Any, initial: Any, keep_models: Any) -> None:
    """Checks the flags and that exactly one of `labelled` and `initial` is given.

    Raises:
        TypeError: warm_start or rewrite_settings is not a flag, or labelled not a pair.
        ValueError: another option has an unknown value.
    """
    check_flag("warm_start", warm_start)
    check_flag("rewrite_settings", rewrite_settings)
    if (labelled is None) == (initial is None):
        raise ValueError("expected either labelled, to begin with, or initial, how many to ask for first")
    if labelled is not None and not (isinstance(labelled, (tuple, list)) and len(labelled) == 2):
        raise TypeError(f"expected labelled to be a pair, positions and their labels; got {type(labelled).__name__}")
    if labelled is not None and not len(labelled[0]):
        raise ValueError("expected at least one label to begin with; initial asks for some that are drawn")
    if keep_models not in ("last", "all"):
        raise ValueError(f"expected keep_models to be 'last' or 'all', got {keep_models!r}")
