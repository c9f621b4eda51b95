"""Which calls factor, and how: a file a layer family. Importing a family registers it."""

from . import attention, batchnorm, conv, embedding, graph, linear, pooling, recurrent, weightnorm
from .base import (
    CallInterceptor,
    Code,
    Layer,
    LayerCall,
    SupportsGhost,
    SupportsTiles,
    VmapReplacements,
    output_of,
    register_decomposition,
    register_layer,
    register_replacement,
    register_rescue,
    rescue_of,
)

__all__ = [
    "CallInterceptor",
    "Code",
    "Layer",
    "LayerCall",
    "SupportsGhost",
    "SupportsTiles",
    "VmapReplacements",
    "attention",
    "batchnorm",
    "conv",
    "embedding",
    "graph",
    "linear",
    "output_of",
    "pooling",
    "recurrent",
    "register_decomposition",
    "register_layer",
    "register_replacement",
    "register_rescue",
    "rescue_of",
    "weightnorm",
]
