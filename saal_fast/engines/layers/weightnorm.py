"""Weight normalisation in plain operations: `vmap` has no rule for the fused one."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import register_replacement


@register_replacement(torch._weight_norm)
def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """`g v / ‖v‖`, the norm taken over all dimensions but `dim`, or over all of them for -1."""
    dims = [i for i in range(v.ndim) if i != dim]
    norm: Tensor = torch.linalg.vector_norm(v, dim=dims, keepdim=True) if dims else v.abs()
    return v * (g / norm)
