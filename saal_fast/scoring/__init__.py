"""Scores of a pool's samples: the walk through the pool, the engines' results, and what explains them."""

from .explain import Explanation, explain
from .nonfinite import NonFiniteError
from .score import EngineName, Options, Scores, score

__all__ = ["EngineName", "Explanation", "NonFiniteError", "Options", "Scores", "explain", "score"]
