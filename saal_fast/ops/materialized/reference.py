"""What the operations with materialized gradients compute, in plain PyTorch; patches are stored."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ... import _native
from ..common.elementwise import check_rule, contribution, working_dtype
from ..common.window import Window, check_layer
from ..tiles.reference import perturbed_weights


def materialized_size(weight: Tensor, groups: int) -> int:
    """Numbers that a sample's gradient at a weight takes: outputs and inputs are rounded up to whole panels and strips."""
    size: int = _native.core().materialized_size(weight.shape[0], weight[0].numel(), groups)
    return size


def materialize(
    a: Tensor, g: Tensor, weight: Tensor, window: list[int] | None, rule: str, q: float
) -> tuple[Tensor, Tensor]:
    """See `materialize_gradient`. M lies first, zeros after it."""
    layer, dtype = check_layer(window, a, g, weight), working_dtype(a, g, weight)
    check_rule(rule, q)
    m = layer.gradients(a.to(dtype), g.to(dtype), weight)
    norms = contribution(m, weight.to(dtype), rule, q).flatten(1).sum(1)
    return norms.to(working_dtype(g)), F.pad(m.flatten(1), (0, materialized_size(weight, layer.groups) - weight.numel()))


def apply(
    gradient: Tensor, x: Tensor, weight: Tensor, scales: Tensor, window: list[int] | None, rule: str, q: float
) -> Tensor:
    """See `apply_materialized`, with what `materialize` kept."""
    dtype = gradient.dtype
    m = gradient[:, : weight.numel()].reshape(-1, *weight.shape)
    weights = perturbed_weights(m, weight.to(dtype), scales.to(dtype), rule, q)
    return Window.of(window).layer_of_each(x.to(dtype), weights).to(x.dtype)
