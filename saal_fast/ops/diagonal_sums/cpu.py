"""`diagonal_sums` in C++ (`csrc/`), for signals and images."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _native
from . import reference


def diagonal_sums(
    pixels: Tensor, space: list[int], kernel: list[int], before: list[int], after: list[int], dilation: list[int]
) -> Tensor:
    """See the operator."""
    if pixels.dtype in (torch.bfloat16, torch.float16):
        return diagonal_sums(pixels.float(), space, kernel, before, after, dilation).to(pixels.dtype)
    if len(space) > 2 or pixels.dtype not in (torch.float32, torch.float64):
        return reference.diagonal_sums(pixels, space, kernel, before, after, dilation)
    flat = 2 - len(space)  # a signal is an image of one row
    space, kernel, dilation = [1] * flat + space, [1] * flat + kernel, [1] * flat + dilation
    before, after = [0] * flat + before, [0] * flat + after
    height, width = reference.output_sizes(space, kernel, before, after, dilation)
    pixels = pixels.contiguous()
    out = pixels.new_empty(pixels.shape[0], height * width, height * width)
    core = _native.core()
    add = core.diagonal_sums_f32 if pixels.dtype == torch.float32 else core.diagonal_sums_f64
    shape = (*space, height, width)
    add(pixels.data_ptr(), out.data_ptr(), len(pixels), shape, kernel, before, dilation, torch.get_num_threads())
    return out
