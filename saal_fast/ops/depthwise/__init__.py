"""Depthwise 2-d convolutions, a channel at a time: with each sample's own weight, and each sample's weight gradient.

Such a weight has a few numbers a channel, so that each sample's gradient is cheap to form and to keep. A grouped convolution
of samples × channels groups, which `vmap` makes of both, is not.
"""

from __future__ import annotations

from torch import Tensor, library

from ..common.registration import register
from ..common.window import Window, empty_output
from . import cpu, reference
from .cpu import supports as supports


@library.custom_op("saal_fast::depthwise_apply", mutates_args=())
def depthwise_apply(x: Tensor, weight: Tensor, window: list[int]) -> Tensor:
    """A convolution of each channel with each sample's own weight.

    Args:
        x: images [N, C, H, W].
        weight: [N, C, *kernel].
        window: a `Window` as a list, of C groups.

    Returns:
        [N, C, H', W'], of x's type.

    Raises:
        ValueError: shapes don't fit each other.
    """
    return reference.apply(x, weight, window)


@library.custom_op("saal_fast::depthwise_gradient", mutates_args=())
def depthwise_gradient(a: Tensor, g: Tensor, window: list[int]) -> Tensor:
    """Each sample's gradient by the weight of a convolution of each channel.

    Args:
        a: images [N, C, H, W].
        g: gradients at the outputs [N, C, H', W'].
        window: a `Window` as a list, of C groups.

    Returns:
        [N, C, *kernel], of the images' type.

    Raises:
        ValueError: shapes don't fit each other.
    """
    return reference.gradient(a, g, window)


@depthwise_apply.register_fake
def _apply_fake(x: Tensor, weight: Tensor, window: list[int]) -> Tensor:
    return empty_output(x, x.shape[1], Window.of(window), x.dtype)


@depthwise_gradient.register_fake
def _gradient_fake(a: Tensor, g: Tensor, window: list[int]) -> Tensor:
    return a.new_empty(*a.shape[:2], *Window.of(window).kernel)


register(depthwise_apply, reference.apply, cpu=cpu.apply, shared=(False, False))
register(depthwise_gradient, reference.gradient, cpu=cpu.gradient, shared=(False, False))
