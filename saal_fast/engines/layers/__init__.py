"""Which calls factor, and how: a file a layer family. Importing a family registers it."""

from . import batchnorm, conv, embedding, linear
from .base import Call, Layer, Sites, reads, rewrites

__all__ = ["Call", "Layer", "Sites", "batchnorm", "conv", "embedding", "linear", "reads", "rewrites"]
