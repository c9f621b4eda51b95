"""The Triton twins of the operations: a file an operation, the kernel first, then the host function that launches it.

Nothing here is imported before the first CUDA tensor arrives, and triton itself may be missing; `available()` tells.
Every kernel of this folder is written to one convention:

    p_x   pointer               s_x_y   stride of x along y, in elements
    i_x   index or indices      b_X     a block's length along X (constexpr)
    X     a length (runtime)

    A [groups, D, T] inputs, G [groups, O, T] output gradients, X' [groups, D, S] another input; S, not T', its positions

Sums are kept in fp32. Addresses are int64. Every load and store is masked along every dimension that can overrun.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernels take; other types run by the reference."""


@cache
def available() -> bool:
    """Whether triton is installed."""
    return importlib.util.find_spec("triton") is not None


def usable(*tensors: Tensor | None) -> bool:
    """Whether the kernels can run on these tensors."""
    return available() and all(t is None or t.dtype in DTYPES for t in tensors)
