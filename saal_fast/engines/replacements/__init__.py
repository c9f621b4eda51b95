"""Functions that `vmap` cannot run, by other means: a file a kind. Importing a file registers it."""

from . import masks, onehot, quantization, questions, unique

__all__ = ["masks", "onehot", "quantization", "questions", "unique"]
