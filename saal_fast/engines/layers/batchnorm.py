"""Batch norm in eval mode, as the one multiply-add that it is.

Under `vmap`, with a weight of its own for each sample, `F.batch_norm` falls apart into five passes over the activations and
a slow backward pass. With `α = w / √(var + eps)` and `β = b - mean·α` it is `β + α·x`, in one pass forwards and one back.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops.common.registration import fold
from ...ops.norms import reference, scale_shift_back
from .base import register_replacement, takes_tangents


@register_replacement(F.batch_norm)
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm`; one that takes its statistics from the batch is left as it is."""
    if training or running_mean is None or running_var is None:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    alpha = (running_var + eps).rsqrt()
    if weight is not None:
        alpha = weight * alpha
    beta = -running_mean * alpha if bias is None else bias - running_mean * alpha
    channels = (-1, *(1,) * (input.ndim - 2))
    alpha, beta = alpha.to(input.dtype), beta.to(input.dtype)
    if any(t.requires_grad for t in (input, alpha, beta)) and not takes_tangents():
        out: Tensor = _ScaleShift.apply(input, alpha, beta)
        return out
    channels = (-1, *(1,) * (input.ndim - 2))
    return torch.addcmul(beta.view(channels), input, alpha.view(channels))


class _ScaleShift(torch.autograd.Function):
    """`scale · x + shift` of images [N, C, *S] with a scale and a shift a channel, in one pass each way."""

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        channels = (*scale.shape, *(1,) * (x.ndim - 2))  # [C], or of each image [N, C]
        return torch.addcmul(shift.view(channels), x, scale.view(channels))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        again = torch.is_grad_enabled()  # the gradients may be differentiated in their turn
        back = reference.scale_shift_gradients if again else scale_shift_back
        gx, by_scale, by_shift = back(x, g, scale.expand(x.shape[:2]))
        return gx, by_scale.sum(0), by_shift.sum(0)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, int]:
        if in_dims[1] is None and in_dims[2] is None:
            return fold(info, in_dims, _ScaleShift.apply, (x, scale, shift), (False, True, True))
        each = [t if d is None else t.movedim(d, 0) for t, d in zip((x, scale, shift), in_dims, strict=True)]
        images, *of_channels = (
            t if d is not None else t.expand(info.batch_size, *t.shape) for t, d in zip(each, in_dims, strict=True)
        )
        rows = [t[:, None].expand(images.shape[:3]).flatten(0, 1) for t in of_channels]
        return _ScaleShift.apply(images.flatten(0, 1), *rows).reshape(images.shape), 0
