"""`out = x Wᵀ + b` over the last dimension."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ...ops import tiles
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
        total: Tensor = tiles.tile_norm(_positions(a), _positions(g), weight, *code)
        return total[0]

    def tile_apply(self, a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        push: Tensor = tiles.tile_apply(_positions(a), _positions(g), _positions(x), weight, scale[None], *code)
        return push.reshape(*x.shape[:-1], -1)


def _positions(x: Tensor) -> Tensor:
    """[..., D] as [1, T, D]."""
    return x.reshape(1, -1, x.shape[-1])


@reads(F.linear)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Call | None:
    """`F.linear`; a weight vector [D] is left to autograd."""
    return Call(Linear(), input, weight, bias) if weight.ndim == 2 else None
