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
from ...ops.norms import layer_norm_back, reference
from .base import register_replacement, takes_tangents

Three = tuple[Tensor, Tensor, Tensor]


class _LayerNorm(torch.autograd.Function):
    """The operation of `ops/norms/`, differentiable."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Three:
        out: Three = layer_norm_of_samples(x, weight, bias, eps)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Three) -> None:
        ctx.eps = inputs[3]
        ctx.save_for_backward(*inputs[:2], *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradients may be differentiated in their turn
            mean, rstd = reference.row_statistics(x, ctx.eps)
            return *reference.layer_norm_back(x, g, weight, mean, rstd), None
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
    """`F.layer_norm`; one without a weight, or that the kernels don't know, is left as it is."""
    if weight is None or not _serves(input, weight, bias):
        return F.layer_norm(input, normalized_shape, weight, bias, eps)
    bias = torch.zeros_like(weight) if bias is None else bias
    rows = input.reshape(1, -1, math.prod(normalized_shape))
    args = rows, weight.reshape(1, -1), bias.reshape(1, -1), eps
    out = _LayerNorm.apply(*args) if any(t.requires_grad for t in args[:3]) else layer_norm_of_samples(*args)
    made: Tensor = out[0].reshape(input.shape)
    return made


def _serves(input: Tensor, *weights: Tensor | None) -> bool:
    types = {t.dtype for t in (input, *weights) if t is not None}
    known = len(types) == 1 and types <= {torch.float32, torch.float64} and input.device.type == "cpu"
    return known and not (torch.is_autocast_enabled("cpu") or takes_tangents())
