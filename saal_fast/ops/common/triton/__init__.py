"""What the Triton kernels of all operations share; nothing here needs triton itself, which may be missing.

An operation's `triton.py` holds the kernel first, then the host function that launches it. One convention for all kernels:

    p_x   pointer               s_x_y   stride of x along y, in elements
    i_x   index or indices      b_X     a block's length along X (constexpr)
    X     a length (runtime)

    A [groups, D, T] inputs, G [groups, O, T] output gradients, X' [groups, D, S] another input; S, not T', its positions

Sums are kept in fp32. Addresses are int64. Every load and store is masked along every dimension that can overrun.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Floating-point types that the kernels take; others run by the reference."""


@cache
def available() -> bool:
    """Whether triton is installed."""
    return importlib.util.find_spec("triton") is not None


def usable(args: Iterable[object]) -> bool:
    """Whether the kernels can run on an operator's arguments."""
    return available() and all(t.dtype in KERNEL_DTYPES for t in args if isinstance(t, Tensor) and t.dtype.is_floating_point)
