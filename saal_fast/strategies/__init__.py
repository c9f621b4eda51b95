"""Acquisition functions behind one small protocol (`Strategy`).

strategy = saal_fast.strategies.make("badge")
picks = strategy.select(model, unlabelled, k=10, labelled=labelled).indices
"""

from __future__ import annotations

from typing import Any

from .badge import BADGE
from .coreset import Coreset
from .ll4al import LL4AL
from .probabilities import Entropy, LeastConfidence, Margin, VariationRatio
from .protocol import Selection, Strategy, TrainingHook
from .saal import SAAL
from .uniform import Random
from .vaal import VAAL

_ALL = (SAAL, Random, Entropy, VariationRatio, Margin, LeastConfidence, Coreset, BADGE, LL4AL, VAAL)

NAMES: tuple[str, ...] = tuple(strategy.name for strategy in _ALL)
"""The names that `make` takes."""


def make(name: str, **options: Any) -> Strategy:
    """Makes a strategy by its name.

    Args:
        name: one of `NAMES`.
        **options: arguments of its class.

    Raises:
        ValueError: no strategy has that name; or as its class.
        TypeError: the class has no such argument.
    """
    for strategy in _ALL:
        if strategy.name == name:
            built: Strategy = strategy(**options)
            return built
    raise ValueError(f"expected the name of a strategy, one of {', '.join(NAMES)}; got {name!r}")


__all__ = [
    "BADGE",
    "LL4AL",
    "NAMES",
    "SAAL",
    "VAAL",
    "Coreset",
    "Entropy",
    "LeastConfidence",
    "Margin",
    "Random",
    "Selection",
    "Strategy",
    "TrainingHook",
    "VariationRatio",
    "make",
]
