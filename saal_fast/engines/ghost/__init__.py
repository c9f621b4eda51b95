"""The fast engine: per-sample gradients kept as factors."""

from .engine import Ghost

__all__ = ["Ghost"]
