"""Fused operations, one file each: the reference and its faster twins side by side."""

from .triton import register as _register  # noqa: F401 - the CUDA twins of operators defined beside it
