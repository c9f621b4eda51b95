"""The parts of SAM's perturbation, which is one over all parameters; many tensors per call (`torch._foreach_*`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_SMALLEST_NORM = 1e-15  # below this, the squares of single numbers underflow float32
_LARGEST_FLOAT32 = 3e38


def gradients(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters of a group that have a gradient, and their gradients; complex ones as views of real pairs.

    Raises:
        RuntimeError: A gradient is sparse.
    """
    weights, grads = [], []
    for p in group["params"]:
        if p.grad is None:
            continue
        if p.grad.layout != torch.strided:
            raise RuntimeError(
                f"expected dense gradients, got one of layout {p.grad.layout} for a parameter of shape {tuple(p.shape)} "
                "(an nn.Embedding with sparse=True?)"
            )
        weights.append(torch.view_as_real(p) if p.is_complex() else p)
        grads.append(torch.view_as_real(p.grad.resolve_conj()) if p.grad.is_complex() else p.grad)
    return weights, grads


def scaled_gradients(weights: list[Tensor], grads: list[Tensor], adaptive: bool) -> list[Tensor]:
    """The gradients whose norm is taken, at least in float32: g, or w ⊙ g for the adaptive form."""
    return [*torch._foreach_mul(_wide(weights), _wide(grads))] if adaptive else _wide(grads)


def perturb_(weights: list[Tensor], scaled: list[Tensor], scale: float, adaptive: bool) -> None:
    """Adds `scale · scaled` to the weights in place, or `scale · w ⊙ scaled` for the adaptive form; rounded once."""
    wide = _wide(weights)
    if adaptive:
        torch._foreach_addcmul_(wide, scaled, wide, value=scale)
    else:
        torch._foreach_add_(wide, scaled, alpha=scale)
    for w, v in zip(weights, wide, strict=True):
        if w is not v:
            w.copy_(v)


def global_norm(tensors: Sequence[Tensor]) -> float:
    """‖·‖₂ over all tensors together, without under- or overflow; synchronises the device once, twice for extreme norms."""
    wide = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    norms = torch._foreach_norm(tuple(tensors), 2, wide)
    norm = math.hypot(*torch.stack([n.to(norms[0].device) for n in norms]).tolist())
    if _SMALLEST_NORM <= norm < math.inf:
        return norm
    peaks = [t.abs().amax().to(norms[0].device, wide) for t in tensors if t.numel()]
    peak = float(torch.stack(peaks).amax()) if peaks else 0.0
    if peak == 0 or not math.isfinite(peak):
        return peak
    return peak * math.hypot(*(float(torch.linalg.vector_norm(t.to(wide) / peak)) for t in tensors))


def step_scale(rho: float, norm: float) -> float:
    """ρ / norm; 0 where the norm is zero, too small for a quotient in float32, or not finite."""
    return rho / norm if norm * _LARGEST_FLOAT32 > rho else 0.0  # false for NaN


def _wide(tensors: list[Tensor]) -> list[Tensor]:
    """Widens float16 and bfloat16 to float32, as some kernels would round the scale to their type."""
    return [t.float() if t.element_size() < 4 else t for t in tensors]
