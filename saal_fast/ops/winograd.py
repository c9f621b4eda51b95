"""3×3 convolutions with one weight for the whole batch, with 16 multiplications where a plain one takes 36.

Minimal filtering F(2×2, 3×3) (Winograd 1980; Lavin & Gray, arXiv:1509.09308): tiles of 4×4 inputs and the weight are
transformed by additions, multiplied place by place and summed over channels as 16 products of matrices, and transformed
back. In float32 the result is as near to the exact one as a plain convolution's. The twin is for CPUs, channels last
throughout; elsewhere the reference runs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, library

from .. import _native
from .elementwise import fold

SHARE = 16 / 36  # of a plain convolution's multiplications
CHANNELS = 16  # inputs and outputs come in multiples
FEWEST = 64  # tiles of 2×2 outputs in a batch, below which transforming the weight costs more than is gained


def fits(weight: Tensor) -> bool:
    """Whether the twin knows such a weight [O, C, *kernel], of a convolution at every pixel and without groups."""
    return weight.shape[2:] == (3, 3) and not (weight.shape[0] % CHANNELS or weight.shape[1] % CHANNELS)


def gains(x: Tensor, weight: Tensor) -> bool:
    """Whether `conv` beats a plain convolution over a batch of images like x on their device."""
    single = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)
    return x.device.type == "cpu" and single and fits(weight)


def reference(x: Tensor, weight: Tensor, padding: list[int], back: bool = False) -> Tensor:
    """See `conv`."""
    top, bottom, left, right = padding
    if back:
        weight, (top, bottom, left, right) = weight.flip(2, 3).transpose(0, 1), (2 - n for n in padding)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight)


@library.custom_op("saal_fast::winograd_conv", mutates_args=())
def conv(x: Tensor, weight: Tensor, padding: list[int], back: bool = False) -> Tensor:
    """A 3×3 convolution of stride 1, or its way back.

    Args:
        x: images [N, C, H, W]; where `back`, gradients at the outputs [N, O, H', W'].
        weight: [O, C, 3, 3].
        padding: zeros around the images: top, bottom, left, right.
        back: give the gradient at the inputs.

    Returns:
        [N, O, H', W'], or where `back` [N, C, H, W]; of x's type.

    Raises:
        ValueError: shapes don't fit each other.
    """
    _check(x, weight, padding, back)
    return reference(x, weight, padding, back)


@conv.register_kernel("cpu")
def _cpu(x: Tensor, weight: Tensor, padding: list[int], back: bool = False) -> Tensor:
    _check(x, weight, padding, back)
    dtypes = (torch.float32, torch.float64)
    if 0 in x.shape or not fits(weight) or x.dtype not in dtypes or x.dtype != weight.dtype:
        return reference(x, weight, padding, back)
    x, weight = x.detach().contiguous(memory_format=torch.channels_last), weight.detach().contiguous()
    out = _empty(x, weight, padding, back)
    if out.shape[0] * out.shape[2] * out.shape[3] < 4 * FEWEST:
        return reference(x, weight, padding, back)
    before = (2 - padding[0], 2 - padding[2]) if back else (padding[0], padding[2])
    _native.core().winograd_conv(x.numpy(), weight.numpy(), out.numpy(), before, back, torch.get_num_threads())
    return out


@conv.register_fake
def _fake(x: Tensor, weight: Tensor, padding: list[int], back: bool = False) -> Tensor:
    return _empty(x, weight, padding, back)


@conv.register_vmap
def _vmap(
    info: object, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, padding: list[int], back: bool = False
) -> tuple[Tensor, int]:
    return fold(info, in_dims[:2], conv, (x, weight), (False, True), padding, back)


class _Differentiable(torch.autograd.Function):
    """`conv` with its way back; `register_autograd` of an operator does not go with torch.func."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, padding: list[int], back: bool) -> Tensor:
        out: Tensor = conv(x, weight, padding, back)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, weight, ctx.padding, ctx.back = inputs
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return _Differentiable.apply(grad, weight, ctx.padding, not ctx.back), None, None, None

    @staticmethod
    def vmap(
        info: object, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, padding: list[int], back: bool
    ) -> tuple[Tensor, int]:
        return fold(info, in_dims[:2], _Differentiable.apply, (x, weight), (False, True), padding, back)


def differentiable(x: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    """`conv`, differentiable with respect to x but not to the weight, under torch.func too."""
    out: Tensor = _Differentiable.apply(x, weight.detach(), padding, False)
    return out


def _sizes(x: Tensor, padding: list[int], back: bool) -> tuple[int, int]:
    """Height and width of the result for images x [*, H, W]."""
    top, bottom, left, right = (-n for n in padding) if back else padding
    around = 2 if back else -2
    return x.shape[-2] + top + bottom + around, x.shape[-1] + left + right + around


def _empty(x: Tensor, weight: Tensor, padding: list[int], back: bool) -> Tensor:
    shape = (x.shape[0], weight.shape[1 if back else 0], *_sizes(x, padding, back))
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _check(x: Tensor, weight: Tensor, padding: list[int], back: bool) -> None:
    fits = x.ndim == weight.ndim == len(padding) == 4 and weight.shape[2:] == (3, 3)
    fits = fits and x.shape[1] == weight.shape[0 if back else 1]
    if not (fits and min(_sizes(x, padding, back)) > 0):
        raise ValueError(
            "expected x [N, C, H, W], weight [O, C, 3, 3], or x [N, O, H', W'] where back, and four paddings (top, bottom, "
            f"left, right); got x {tuple(x.shape)}, weight {tuple(weight.shape)}, padding={padding}, back={back}"
        )
