"""`conv` in C++ (`csrc/`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _native
from . import reference

MIN_TILES = 64
"""Tiles of 2×2 outputs in a batch below which transforming the weight costs more than is gained."""


def supports(weight: Tensor) -> bool:
    """Whether the kernel knows a weight [O, C, *kernel] of a convolution at every pixel and without groups."""
    outputs, inputs, *kernel = weight.shape
    return kernel == [3, 3] and bool(_native.core().winograd_channels_fit(inputs, outputs))


def conv(x: Tensor, weight: Tensor, padding: list[int], backward: bool = False) -> Tensor:
    """See the operator."""
    reference.check(x, weight, padding, backward)
    dtypes = (torch.float32, torch.float64)
    if 0 in x.shape or not supports(weight) or x.dtype not in dtypes or x.dtype != weight.dtype:
        return reference.conv(x, weight, padding, backward)
    x, weight = x.detach().contiguous(memory_format=torch.channels_last), weight.detach().contiguous()
    out = reference.room_for_output(x, weight, padding, backward)
    if out.shape[0] * out.shape[2] * out.shape[3] < 4 * MIN_TILES:
        return reference.conv(x, weight, padding, backward)
    before = (2 - padding[0], 2 - padding[2]) if backward else (padding[0], padding[2])
    _native.core().winograd_conv(x.numpy(), weight.numpy(), out.numpy(), before, backward, torch.get_num_threads())
    return out
