"""A batch's work, captured once a shape and replayed: a CUDA graph, or a flat trace on a CPU."""

from .captured_engine import captured

__all__ = ["captured"]
