"""What `diagonal_sums` computes, in plain PyTorch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def diagonal_sums(
    pixels: Tensor, space: list[int], kernel: list[int], before: list[int], after: list[int], dilation: list[int]
) -> Tensor:
    """See the operator."""
    dims = len(space)
    gram = pixels.reshape(-1, *space, *space)
    for i in range(dims):
        first, second = 1 + i, 1 + dims + i
        pads = [0] * (2 * (gram.ndim - 1))  # none for the samples, of which there may be none
        for dim in (first, second):
            pads[2 * (gram.ndim - 1 - dim)], pads[2 * (gram.ndim - 1 - dim) + 1] = before[i], after[i]
        gram = F.pad(gram, pads)
        size = gram.shape[first] - (kernel[i] - 1) * dilation[i]
        starts = [k * dilation[i] for k in range(kernel[i])]
        gram = torch.stack([gram.narrow(first, k, size).narrow(second, k, size) for k in starts]).sum(0)
    positions = positions_of(space, kernel, before, after, dilation)
    return gram.reshape(-1, positions, positions)


def output_sizes(*window: list[int]) -> list[int]:
    """The convolution's output size in each dimension; arguments as the operator's."""
    return [s + b + a - (k - 1) * d for s, k, b, a, d in zip(*window, strict=True)]


def positions_of(*window: list[int]) -> int:
    """The number of the convolution's output positions."""
    return math.prod(output_sizes(*window))
