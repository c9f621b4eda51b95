"""Which calls factor, and how: a file a layer family. Importing a family registers it."""

from . import attention, batchnorm, conv, embedding, linear, pooling, recurrent, weightnorm
from .base import Call, Ghosted, Layer, Rewritten, Sites, Tiled, opens, output_of, reads, rewrites

__all__ = [
    "Call",
    "Ghosted",
    "Layer",
    "Rewritten",
    "Sites",
    "Tiled",
    "attention",
    "batchnorm",
    "conv",
    "embedding",
    "linear",
    "opens",
    "output_of",
    "pooling",
    "reads",
    "recurrent",
    "rewrites",
    "weightnorm",
]
