"""What the operations compute, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

Three = tuple[Tensor, Tensor, Tensor]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Three:
    """See the operator."""
    check_rows(x, x, weight, bias)
    mean, rstd = row_statistics(x, eps)
    y = (x - mean[..., None]) * rstd[..., None] * weight[:, None] + bias[:, None]
    return y.contiguous(), mean, rstd


def layer_norm_back(x: Tensor, g: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor) -> Three:
    """See the operator."""
    check_rows(x, g, weight)
    normal, inner = (x - mean[..., None]) * rstd[..., None], g * weight[:, None]
    level, slope = inner.mean(2, keepdim=True), (inner * normal).mean(2, keepdim=True)
    return ((inner - level - normal * slope) * rstd[..., None]).contiguous(), (g * normal).sum(1), g.sum(1)


def row_statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Each row's mean and `1 / √(var + eps)` [N, T]."""
    variance, mean = torch.var_mean(x, 2, correction=0)
    return mean, (variance + eps).rsqrt()


def check_rows(x: Tensor, g: Tensor, *of_samples: Tensor) -> None:
    """Raises where shapes don't fit each other."""
    if x.ndim != 3 or x.shape != g.shape or any(t.shape != (x.shape[0], x.shape[2]) for t in of_samples):
        got = ", ".join(str(list(t.shape)) for t in (x, g, *of_samples))
        raise ValueError(f"expected rows [N, T, D], weight and bias [N, D]; got {got}")
