"""Which calls factor, and how: a file a layer family. Importing a family registers it."""

from . import attention, batchnorm, bilinear, conv, embedding, linear, pooling, product, recurrent, weightnorm
from .base import (
    CallInterceptor,
    Code,
    Layer,
    LayerCall,
    Names,
    Place,
    SupportsGhost,
    SupportsTiles,
    VmapReplacements,
    output_of,
    register_decomposition,
    register_layer,
    register_replacement,
)

__all__ = [
    "CallInterceptor",
    "Code",
    "Layer",
    "LayerCall",
    "Names",
    "Place",
    "SupportsGhost",
    "SupportsTiles",
    "VmapReplacements",
    "attention",
    "batchnorm",
    "bilinear",
    "conv",
    "embedding",
    "linear",
    "output_of",
    "pooling",
    "product",
    "recurrent",
    "register_decomposition",
    "register_layer",
    "register_replacement",
    "weightnorm",
]
