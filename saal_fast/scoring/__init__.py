"""Scores of a pool's samples: the walk through the pool, the engines' results, and what explains them."""

from .comparison import SelfCheckError
from .explain import Explanation, explain
from .nonfinite import NonFiniteError
from .options import EngineName, Options, ScoreOptions
from .result import Objective, Scores
from .score import score, score_pool

__all__ = [
    "EngineName",
    "Explanation",
    "NonFiniteError",
    "Objective",
    "Options",
    "ScoreOptions",
    "Scores",
    "SelfCheckError",
    "explain",
    "score",
    "score_pool",
]
