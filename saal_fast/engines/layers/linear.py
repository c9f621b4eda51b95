"""`out = x Wᵀ + b` over the last dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops.ghost import ghost_apply, ghost_norm
from ...ops.materialized import apply_materialized, materialize_gradient
from ...ops.tiles import tile_apply, tile_norm
from .base import Code, LayerCall, register_layer


@dataclass(frozen=True)
class Linear:
    """Geometry of a linear layer; every leading dimension is a position."""

    def unfold_input(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        return self.flatten_grad(x)

    def gram(self, a: Tensor, x: Tensor) -> Tensor:
        """See `Layer`."""
        return self.flatten_grad(a).mT @ self.flatten_grad(x)

    def flatten_grad(self, g: Tensor) -> Tensor:
        """See `Layer`."""
        return g.reshape(1, -1, g.shape[-1]).mT

    def unflatten_output(self, y: Tensor, like: Tensor) -> Tensor:
        """See `Layer`."""
        return y.mT.reshape(like.shape)

    def gram_flops(self, x: Tensor, positions: int) -> float:
        """See `Layer`."""
        return float(positions**2 * x.shape[-1])

    def tiles(self, x: Tensor) -> bool:
        return True

    def tile_norm(self, a: Tensor, g: Tensor, weight: Tensor, code: Code) -> Tensor:
        total: Tensor = tile_norm(_positions(a), _positions(g), weight, None, *code)
        return total[0]

    def tile_apply(self, a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        rows = [_positions(t) for t in (a, g, x)]
        out: Tensor = tile_apply(*rows, weight, scale[None], None, *code)
        return out.reshape(*x.shape[:-1], -1)

    def materialize(self, a: Tensor, g: Tensor, weight: Tensor, code: Code) -> tuple[Tensor, Tensor]:
        norm, gradient = materialize_gradient(_positions(a), _positions(g), weight, None, *code)
        return norm[0], gradient

    def materialize_flops(self, call: LayerCall, positions: int) -> float:
        return float(positions * call.weight.numel())

    def apply_materialized(self, gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        out: Tensor = apply_materialized(gradient, _positions(x), weight, scale[None], None, *code)
        return out.reshape(*x.shape[:-1], -1)

    def add_bias(self, out: Tensor, bias: Tensor) -> Tensor:
        return out + bias

    def join_uses(self, uses: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        if len(uses) == 1:
            return uses[0]
        a, g = zip(*uses, strict=True)
        return torch.cat([_positions(t) for t in a], 1), torch.cat([_positions(t) for t in g], 1)

    def ghost_norm(self, a: Tensor, g: Tensor, bias: bool) -> Tensor:
        total: Tensor = ghost_norm(_positions(a), _positions(g), None, bias)
        return total[0]

    def ghost_apply(self, a: Tensor, g: Tensor, x: Tensor, scale: Tensor, base: Tensor, bias: bool) -> Tensor:
        a, g, x, under = (_positions(t) for t in (a, g, x, base))
        out: Tensor = ghost_apply(a, g, x, scale[None], under, None, bias)
        return out.reshape(base.shape)


def _positions(x: Tensor) -> Tensor:
    """[..., D] as [1, T, D]."""
    return x.reshape(1, -1, x.shape[-1])


@register_layer(F.linear)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> LayerCall | None:
    """`F.linear`; a weight vector [D] is left to autograd."""
    return LayerCall(Linear(), input, weight, bias) if weight.ndim == 2 else None
