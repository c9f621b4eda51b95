"""What `conv` computes, as a plain convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def conv(x: Tensor, weight: Tensor, padding: list[int], backward: bool = False) -> Tensor:
    """See the operator."""
    check(x, weight, padding, backward)
    top, bottom, left, right = padding
    if backward:
        weight, (top, bottom, left, right) = weight.flip(2, 3).transpose(0, 1), (2 - n for n in padding)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight)


def room_for_output(x: Tensor, weight: Tensor, padding: list[int], backward: bool) -> Tensor:
    """Room for the result, channels last."""
    shape = (x.shape[0], weight.shape[1 if backward else 0], *_output_size(x, padding, backward))
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def check(x: Tensor, weight: Tensor, padding: list[int], backward: bool) -> None:
    """Raises where shapes don't fit each other."""
    fits = x.ndim == weight.ndim == len(padding) == 4 and weight.shape[2:] == (3, 3)
    fits = fits and x.shape[1] == weight.shape[0 if backward else 1]
    if not (fits and min(_output_size(x, padding, backward)) > 0):
        raise ValueError(
            "expected x [N, C, H, W], weight [O, C, 3, 3], or with backward x [N, O, H', W'], and paddings (top, bottom, "
            f"left, right); got x {tuple(x.shape)}, weight {tuple(weight.shape)}, {padding=}, {backward=}"
        )


def _output_size(x: Tensor, padding: list[int], backward: bool) -> tuple[int, int]:
    """Height and width of the result for images x [*, H, W]."""
    top, bottom, left, right = (-n for n in padding) if backward else padding
    around = 2 if backward else -2
    return x.shape[-2] + top + bottom + around, x.shape[-1] + left + right + around
