"""What the tile operations compute, in plain PyTorch: M is stored, N·O·D numbers, and so are patches."""

from __future__ import annotations

from torch import Tensor

from ..common.elementwise import check_rule, contribution, direction, working_dtype
from ..common.window import check_layer


def norm(a: Tensor, g: Tensor, weight: Tensor, window: list[int] | None, rule: str, q: float) -> Tensor:
    """See `tile_norm`."""
    layer, dtype = check_layer(window, a, g, weight), working_dtype(a, g, weight)
    check_rule(rule, q)
    m = layer.gradients(a.to(dtype), g.to(dtype), weight)
    return contribution(m, weight.to(dtype), rule, q).flatten(1).sum(1).to(working_dtype(g))


def apply(
    a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scales: Tensor, window: list[int] | None, rule: str, q: float
) -> Tensor:
    """See `tile_apply`."""
    layer, dtype = check_layer(window, a, g, weight, x, scales), working_dtype(a, g, weight, x, scales)
    check_rule(rule, q)
    m = layer.gradients(a.to(dtype), g.to(dtype), weight)
    weights = perturbed_weights(m, weight.to(dtype), scales.to(dtype), rule, q)
    return layer.layer_of_each(x.to(dtype), weights).to(g.dtype)


def perturbed_weights(m: Tensor, weight: Tensor, scales: Tensor, rule: str, q: float) -> Tensor:
    """`W + s · δ(M, W)` of each sample [N, *weight.shape]."""
    return weight + scales.reshape(-1, *(1,) * weight.ndim) * direction(m, weight, rule, q)
