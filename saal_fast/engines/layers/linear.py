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
from .base import Call, Code, reads


@dataclass(frozen=True)
class Linear:
    """Geometry of a linear layer; every leading dimension is a position."""

    def columns(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        return self.rows(x)

    def gram(self, a: Tensor, x: Tensor) -> Tensor:
        """See `Layer`."""
        return self.rows(a).mT @ self.rows(x)

    def rows(self, g: Tensor) -> Tensor:
        """See `Layer`."""
        return g.reshape(1, -1, g.shape[-1]).mT

    def unrows(self, y: Tensor, like: Tensor) -> Tensor:
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

    def tile_step(self, a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        rows = [_positions(t) for t in (a, g, x)]
        out: Tensor = tile_apply(*rows, weight, scale[None], None, *code)
        return out.reshape(*x.shape[:-1], -1)

    def hold(self, a: Tensor, g: Tensor, weight: Tensor, code: Code) -> tuple[Tensor, Tensor]:
        norm, held = materialize_gradient(_positions(a), _positions(g), weight, None, *code)
        return norm[0], held

    def holding_flops(self, call: Call, positions: int) -> float:
        return float(positions * call.weight.numel())

    def held_step(self, held: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        out: Tensor = apply_materialized(held, _positions(x), weight, scale[None], None, *code)
        return out.reshape(*x.shape[:-1], -1)

    def biased(self, out: Tensor, bias: Tensor) -> Tensor:
        return out + bias

    def joined(self, uses: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        if len(uses) == 1:
            return uses[0]
        a, g = zip(*uses, strict=True)
        return torch.cat([_positions(t) for t in a], 1), torch.cat([_positions(t) for t in g], 1)

    def ghost_norm(self, a: Tensor, g: Tensor, bias: bool) -> Tensor:
        total: Tensor = ghost_norm(_positions(a), _positions(g), None, bias)
        return total[0]

    def ghost_step(self, a: Tensor, g: Tensor, x: Tensor, scale: Tensor, base: Tensor, bias: bool) -> Tensor:
        a, g, x, under = (_positions(t) for t in (a, g, x, base))
        out: Tensor = ghost_apply(a, g, x, scale[None], under, None, bias)
        return out.reshape(base.shape)


def _positions(x: Tensor) -> Tensor:
    """[..., D] as [1, T, D]."""
    return x.reshape(1, -1, x.shape[-1])


@reads(F.linear)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Call | None:
    """`F.linear`; a weight vector [D] is left to autograd."""
    return Call(Linear(), input, weight, bias) if weight.ndim == 2 else None
