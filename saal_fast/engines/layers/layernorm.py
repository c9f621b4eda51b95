"""Layer norm in one pass each way: under `vmap` its weight, its bias and their gradients would be passes of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops.common.registration import fold
from ...ops.norms import layer_norm as layer_norm_of_samples
from ...ops.norms import layer_norm_back
from .base import register_replacement

Three = tuple[Tensor, Tensor, Tensor]


class _LayerNorm(torch.autograd.Function):
    """The operation of `ops/norms/`, differentiable."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Three:
        out: Three = layer_norm_of_samples(x, weight, bias, eps)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Three) -> None:
        ctx.save_for_backward(*inputs[:2], *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd, g = (t.detach() for t in (*ctx.saved_tensors, g))  # engines differentiate once
        return *layer_norm_back(x, g, weight, mean, rstd), None

    @staticmethod
    def vmap(info: object, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        return fold(info, in_dims[:3], _LayerNorm.apply, args[:3], (False,) * 3, args[3])


@register_replacement(F.layer_norm)
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`F.layer_norm`; one without a weight, or not on a CPU, is left as it is."""
    types = {t.dtype for t in (input, weight, bias) if t is not None}
    if weight is None or input.device.type != "cpu" or len(types) > 1 or torch.is_autocast_enabled("cpu"):
        return F.layer_norm(input, normalized_shape, weight, bias, eps)
    bias = torch.zeros_like(weight) if bias is None else bias
    rows = input.reshape(1, -1, math.prod(normalized_shape))
    args = rows, weight.reshape(1, -1), bias.reshape(1, -1), eps
    out = _LayerNorm.apply(*args) if any(t.requires_grad for t in args[:3]) else layer_norm_of_samples(*args)
    made: Tensor = out[0].reshape(input.shape)
    return made
