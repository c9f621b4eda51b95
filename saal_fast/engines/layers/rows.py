"""Products `out[t] = W x[t]` with a weight [O, D] a group: what layers share whose tensors lie as rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...ops.ghost import ghost_apply, ghost_norm
from ...ops.materialized import apply_materialized, materialize_gradient
from ...ops.tiles import tile_apply, tile_norm
from .base import Code, LayerCall


class Rows:
    """A layer's geometry by how its tensors lie as rows. The operations take the groups for samples."""

    @property
    def grouped(self) -> bool:
        """Whether there may be more than one group; tiles know one."""
        return False

    def inputs(self, x: Tensor) -> Tensor:
        """The input as rows [groups, T, D]."""
        raise NotImplementedError(f"{type(self).__name__} must say how its input lies as rows")

    def outputs(self, g: Tensor) -> Tensor:
        """A tensor shaped as the output, as rows [groups, T, O]."""
        raise NotImplementedError(f"{type(self).__name__} must say how its output lies as rows")

    def from_rows(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """The inverse of `outputs`, for an output of this shape."""
        raise NotImplementedError(f"{type(self).__name__} must say how rows lie in its output")

    def output_shape(self, x: Tensor, outputs: int) -> Sequence[int]:
        """The shape of the output at an input, with O = `outputs`."""
        raise NotImplementedError(f"{type(self).__name__} must give the shape of its output")

    def matrix(self, weight: Tensor) -> Tensor:
        """See `Layer`."""
        raise NotImplementedError(f"{type(self).__name__} must say how its weight lies as a matrix")

    def unfold_input(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        return self.inputs(x).mT

    def gram(self, a: Tensor, x: Tensor) -> Tensor:
        """See `Layer`."""
        return self.inputs(a) @ self.inputs(x).mT

    def flatten_grad(self, g: Tensor) -> Tensor:
        """See `Layer`."""
        return self.outputs(g).mT

    def unflatten_output(self, y: Tensor, like: Tensor) -> Tensor:
        """See `Layer`."""
        return self.from_rows(y.mT, like.shape)

    def gram_flops(self, x: Tensor, positions: int) -> float:
        """See `Layer`."""
        groups, _, width = self.inputs(torch.empty(x.shape, device="meta")).shape
        return float(groups * positions**2 * width)

    def tiles(self, x: Tensor) -> bool:
        return not self.grouped

    def small(self, call: LayerCall) -> bool:
        return False

    def tile_norm(self, a: Tensor, g: Tensor, weight: Tensor, code: Code) -> Tensor:
        total: Tensor = tile_norm(self.inputs(a), self.outputs(g), weight, None, *code)
        return total[0]

    def tile_apply(self, a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        rows = self.inputs(a), self.outputs(g), self.inputs(x)
        out: Tensor = tile_apply(*rows, weight, scale[None], None, *code)
        return self.from_rows(out, self.output_shape(x, len(weight)))

    def materialize(self, a: Tensor, g: Tensor, weight: Tensor, code: Code) -> tuple[Tensor, Tensor]:
        norm, gradient = materialize_gradient(self.inputs(a), self.outputs(g), weight, None, *code)
        return norm[0], gradient

    def materialize_flops(self, call: LayerCall, positions: int) -> float:
        return float(positions * call.weight.numel())

    def apply_materialized(self, gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        out: Tensor = apply_materialized(gradient, self.inputs(x), weight, scale[None], None, *code)
        return self.from_rows(out, self.output_shape(x, len(weight)))

    def add_bias(self, out: Tensor, bias: Tensor) -> Tensor:
        return out + bias

    def join_uses(self, uses: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        a, g = [self.inputs(a) for a, _ in uses], [self.outputs(g) for _, g in uses]
        return (a[0], g[0]) if len(uses) == 1 else (torch.cat(a, 1), torch.cat(g, 1))

    def ghost_norm(self, a: Tensor, g: Tensor, bias: bool) -> Tensor:
        totals: Tensor = ghost_norm(a, g, None, bias)
        return totals.sum()

    def ghost_apply(self, a: Tensor, g: Tensor, x: Tensor, scale: Tensor, base: Tensor, bias: bool) -> Tensor:
        scales = scale.expand(len(a))
        out: Tensor = ghost_apply(a, g, self.inputs(x), scales, self.outputs(base), None, bias)
        return self.from_rows(out, base.shape)
