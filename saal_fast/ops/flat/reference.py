"""What the operations on flat gradients compute, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.elementwise import check_rule, contribution, direction, working_dtype


def norm(g: Tensor, weight: Tensor, rule: str, q: float) -> Tensor:
    """See `flat_norm`."""
    dtype = check(g, weight, rule, q)
    return contribution(g.to(dtype), weight.to(dtype), rule, q).sum(1)


def step(g: Tensor, weight: Tensor, scales: Tensor, rule: str, q: float) -> Tensor:
    """See `flat_step`."""
    dtype = check(g, weight, rule, q, scales)
    w = weight.to(dtype)
    return (w + scales.to(dtype)[:, None] * direction(g.to(dtype), w, rule, q)).to(weight.dtype)


def check(g: Tensor, weight: Tensor, rule: str, q: float, scales: Tensor | None = None) -> torch.dtype:
    """The type to compute in, if tensors and rule are as they should be."""
    check_rule(rule, q)
    if g.ndim != 2 or weight.shape != g.shape[1:] or (scales is not None and scales.shape != g.shape[:1]):
        more = "" if scales is None else f", scales {list(scales.shape)}"
        raise ValueError(
            f"expected g [N, P], weight [P], scales [N]; got g {list(g.shape)}, weight {list(weight.shape)}{more}"
        )
    return working_dtype(g, weight) if scales is None else working_dtype(g, weight, scales)
