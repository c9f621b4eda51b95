"""Which calls factor, and how: a file a layer family. Importing a family registers it."""

from . import attention, batchnorm, conv, embedding, linear, recurrent
from .base import Call, Layer, Rewritten, Sites, opens, reads, rewrites

__all__ = [
    "Call",
    "Layer",
    "Rewritten",
    "Sites",
    "attention",
    "batchnorm",
    "conv",
    "embedding",
    "linear",
    "opens",
    "reads",
    "recurrent",
    "rewrites",
]
