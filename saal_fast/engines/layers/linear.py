"""`out = x Wᵀ + b` over the last dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops import ghost_l2, tiles
from ...ops import held as ops_held
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
        total: Tensor = tiles.tile_norm(_positions(a), _positions(g), weight, *code)
        return total[0]

    def tile_apply(self, a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        rows = [_positions(t) for t in (a, g, x)]
        out: Tensor = tiles.tile_apply(*rows, weight, scale[None], *code, whole=True)
        return out.reshape(*x.shape[:-1], -1)

    def materialize(self, a: Tensor, g: Tensor, weight: Tensor, code: Code) -> tuple[Tensor, Tensor]:
        norm, held = ops_held.hold(_image(a), _image(g), weight[..., None, None], *_POINTS, *code)
        return norm[0], held

    def materialize_flops(self, call: LayerCall, positions: int) -> float:
        return float(positions * call.weight.numel())

    def apply_materialized(self, held: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        out: Tensor = ops_held.held_apply(held, _image(x), weight[..., None, None], scale[None], *_POINTS, *code)
        return out.squeeze(2).mT.reshape(*x.shape[:-1], -1)

    def add_bias(self, out: Tensor, bias: Tensor) -> Tensor:
        return out + bias

    def join_uses(self, uses: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        if len(uses) == 1:
            return uses[0]
        a, g = zip(*uses, strict=True)
        return torch.cat([_positions(t) for t in a], 1), torch.cat([_positions(t) for t in g], 1)

    def ghost_norm(self, a: Tensor, g: Tensor, bias: bool) -> Tensor:
        total: Tensor = ghost_l2.ghost_norm(_positions(a), _positions(g), bias)
        return total[0]

    def ghost_apply(self, a: Tensor, g: Tensor, x: Tensor, scale: Tensor, base: Tensor, bias: bool) -> Tensor:
        a, g, x, under = (_positions(t) for t in (a, g, x, base))
        out: Tensor = ghost_l2.ghost_apply(a, g, x, scale[None], under, bias)
        return out.reshape(base.shape)


def _positions(x: Tensor) -> Tensor:
    """[..., D] as [1, T, D]."""
    return x.reshape(1, -1, x.shape[-1])


_POINTS = ([1, 1], [0, 0, 0, 0], [1, 1], 1)  # stride, padding, dilation and groups of a 1×1 convolution


def _image(x: Tensor) -> Tensor:
    """[..., D] as an image of one row [1, D, 1, T]; a view."""
    return _positions(x).mT.unsqueeze(2)


@register_layer(F.linear)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> LayerCall | None:
    """`F.linear`; a weight vector [D] is left to autograd."""
    return LayerCall(Linear(), input, weight, bias) if weight.ndim == 2 else None
