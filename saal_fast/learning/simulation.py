"""Active learning in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .learner import ActiveLearner

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


def run(
    model: Callable[[], nn.Module], pool: Any, *, oracle: Callable[[Tensor], Any], rounds: int, **options: Any
) -> ActiveLearner:
    """Runs active learning from beginning to end (Algorithm 1) with a new `ActiveLearner`.

    Args:
        model: as for `ActiveLearner`.
        pool: as for `ActiveLearner`.
        oracle: returns the labels [n, ...] of positions in the pool, int64 [n].
        rounds: number of rounds.
        **options: further arguments of `ActiveLearner`.

    Returns:
        The learner, with its `rounds` and its `model`.
    """
    learner = ActiveLearner(model, pool, **options)
    learner.run(oracle, rounds)
    return learner
