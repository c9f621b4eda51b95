"""A linear layer at one position: M is an outer product, and every rule factors, on any device.

|g_o a_d|^q = |g_o|^q |a_d|^q, and Adaptive's sums are `(G²)ᵀ W² (A²)` and `G ⊙ (W² (A ⊙ x'))`, two batched matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.elementwise import direction


def is_outer(a: Tensor) -> bool:
    """Whether a layer's input is rows [N, 1, D]."""
    return a.ndim == 3 and a.shape[1] == 1


def norm(a: Tensor, g: Tensor, weight: Tensor, rule: str, q: float) -> Tensor:
    """`tile_norm` in closed form; a [N, 1, D], g [N, 1, O], all of one type."""
    a, g = a[:, 0], g[:, 0]
    if rule == "adaptive":
        return (g.square() * (a.square() @ weight.square().mT)).sum(1)
    power = 2.0 if rule == "l2" else q
    return g.abs().pow(power).sum(1) * a.abs().pow(power).sum(1)


def apply(a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scales: Tensor, rule: str, q: float) -> Tensor:
    """`tile_apply` in closed form; a [N, 1, D], g [N, 1, O], x [N, T', D], all of one type."""
    a, g = a[:, 0], g[:, 0]
    if rule == "adaptive":
        along, across = (a.unsqueeze(1) * x) @ weight.square().mT, scales[:, None] * g
    else:
        along = x @ direction(a, weight, rule, q).unsqueeze(2)  # [N, T', 1]
        across = scales[:, None] * direction(g, weight, rule, q)
    return torch.addcmul(x @ weight.mT, along, across.unsqueeze(1))
