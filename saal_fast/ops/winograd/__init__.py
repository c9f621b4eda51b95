"""3×3 convolutions with one weight for the whole batch, with 16 multiplications where a plain one takes 36.

Minimal filtering F(2×2, 3×3) (Winograd 1980; Lavin & Gray, arXiv:1509.09308): tiles of 4×4 inputs and the weight are
transformed by additions, multiplied place by place and summed over channels as 16 products of matrices, and transformed
back. In float32 the result is as near to the exact one as a plain convolution's. The C++ kernel is for CPUs, channels last
throughout; elsewhere the reference runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, library

from ..common.registration import fold, register
from . import cpu, reference
from .cpu import supports as supports

PRODUCTS_SHARE = 16 / 36
"""Multiplications, as a share of a plain convolution's."""


def is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether `conv` beats a plain convolution over a batch of images like x on their device."""
    single = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)
    return x.device.type == "cpu" and single and supports(weight)


@library.custom_op("saal_fast::winograd_conv", mutates_args=())
def conv(x: Tensor, weight: Tensor, padding: list[int], backward: bool = False) -> Tensor:
    """A 3×3 convolution of stride 1, or its backward pass to the inputs.

    Args:
        x: images [N, C, H, W]; with `backward`, gradients at the outputs [N, O, H', W'].
        weight: [O, C, 3, 3].
        padding: zeros around the images: top, bottom, left, right.
        backward: give the gradient at the inputs.

    Returns:
        [N, O, H', W'], or with `backward` [N, C, H, W]; of x's type.

    Raises:
        ValueError: shapes don't fit each other.
    """
    return reference.conv(x, weight, padding, backward)


@conv.register_fake
def _fake(x: Tensor, weight: Tensor, padding: list[int], backward: bool = False) -> Tensor:
    return reference.room_for_output(x, weight, padding, backward)


register(conv, reference.conv, cpu=cpu.conv, shared=(False, True))


class _Differentiable(torch.autograd.Function):
    """`conv` with its backward pass; `register_autograd` of an operator does not go with torch.func."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, padding: list[int], backward: bool) -> Tensor:
        out: Tensor = conv(x, weight, padding, backward)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, weight, ctx.padding, ctx.backward = inputs
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return _Differentiable.apply(grad, weight, ctx.padding, not ctx.backward), None, None, None

    @staticmethod
    def vmap(
        info: object, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, padding: list[int], backward: bool
    ) -> tuple[Tensor, int]:
        return fold(info, in_dims[:2], _Differentiable.apply, (x, weight), (False, True), padding, backward)


def differentiable_conv(x: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    """`conv`, differentiable with respect to x but not to the weight, under torch.func too."""
    out: Tensor = _Differentiable.apply(x, weight.detach(), padding, False)
    return out
