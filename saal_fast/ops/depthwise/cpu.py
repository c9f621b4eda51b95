"""The operations in C++ (`csrc/conv/depthwise*`), channels last, for float32 and float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import _native
from ..common.window import Window, is_channels_last
from . import reference


def supports(window: Window) -> bool:
    """Whether the kernels know a depthwise convolution of this window."""
    return bool(_native.core().depthwise_fits(window.kernel[1]))


def apply(x: Tensor, weight: Tensor, window: list[int]) -> Tensor:
    """See `depthwise_apply`."""
    layer = reference.check(x, window, weight=weight)
    if not _serves(layer, x, weight):
        return reference.apply(x, weight, window)
    out = x.new_empty(len(x), *layer.output_size(*x.shape[2:]), x.shape[1])
    _native.core().depthwise_apply(_last(x).numpy(), _last(weight).numpy(), out.numpy(), *_arguments(layer))
    order = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return out.permute(0, 3, 1, 2).contiguous(memory_format=order)


def gradient(a: Tensor, g: Tensor, window: list[int]) -> Tensor:
    """See `depthwise_gradient`."""
    layer = reference.check(a, window, g=g)
    if not _serves(layer, a, g):
        return reference.gradient(a, g, window)
    sums = a.new_empty(len(a), *layer.kernel, a.shape[1])
    _native.core().depthwise_gradient(_last(a).numpy(), _last(g).numpy(), sums.numpy(), *_arguments(layer))
    return sums.permute(0, 3, 1, 2).contiguous()


def _arguments(layer: Window) -> tuple[Any, ...]:
    return layer.stride, layer.before, layer.dilation, torch.get_num_threads()


def _last(images: Tensor) -> Tensor:
    """[N, H, W, C], contiguous."""
    return images.permute(0, 2, 3, 1).contiguous()


def _serves(layer: Window, *tensors: Tensor) -> bool:
    types = {t.dtype for t in tensors}
    return len(types) == 1 and types <= {torch.float32, torch.float64} and 0 not in tensors[0].shape and supports(layer)
