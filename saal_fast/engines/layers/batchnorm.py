"""Batch norm in eval mode, as the one multiply-add that it is.

Under `vmap`, with a weight of its own for each sample, `F.batch_norm` falls apart into five passes over the activations and
a slow backward pass. With `α = w / √(var + eps)` and `β = b - mean·α` it is `β + α·x`, forwards and backwards.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import register_replacement


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
    alpha, beta = alpha.view(channels).to(input.dtype), beta.view(channels).to(input.dtype)
    if any(t.requires_grad for t in (input, alpha, beta)):  # addcmul's gradient multiplies by its factor 1, twice
        return input * alpha + beta
    return torch.addcmul(beta, input, alpha)
