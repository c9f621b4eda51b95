"""What `cross_entropy` computes, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.elementwise import working_dtype

MIN_LOSS = 1e-15
"""The least loss that a gradient is divided by: neither its reciprocal nor the reciprocal's square overflows."""


def cross_entropy(logits: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """See the operator."""
    check(logits, label)
    z = logits.to(working_dtype(logits))
    y = z.argmax(1) if label is None else label.to(torch.int64, copy=True)  # an operator returns no input of its own
    own = torch.zeros_like(z, dtype=torch.bool).scatter(1, y[:, None], True)
    others = (z - z.gather(1, y[:, None])).masked_fill(own, -torch.inf)
    rest = others.logsumexp(1)
    loss = torch.logaddexp(rest, torch.zeros_like(rest))
    shares = (others - loss[:, None]).exp()  # exp(z_j - z_y) / (1 + Σ), and 0 at y
    grad = shares - torch.where(own, shares.sum(1, keepdim=True), 0.0)
    return y, loss, (grad * loss.clamp(MIN_LOSS, 1.0).reciprocal()[:, None]).to(logits.dtype)


def check(logits: Tensor, label: Tensor | None) -> None:
    """Raises where logits or labels are none."""
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"expected logits [N, C] with C >= 2 classes, got {list(logits.shape)}")
    if label is not None and label.shape != logits.shape[:1]:
        raise ValueError(f"expected label [N] for logits {list(logits.shape)}, got {list(label.shape)}")
    if label is not None and (label.is_floating_point() or label.is_complex() or label.dtype == torch.bool):
        raise TypeError(f"expected labels as integers, got {label.dtype}")
