"""`out = x Wᵀ + b` over the last dimension, or `out = x W`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .base import LayerCall, register_layer
from .rows import Rows


@dataclass(frozen=True)
class Linear(Rows):
    """Geometry of a linear layer; every leading dimension is a position.

    Attributes:
        transposed: whether the weight is [D, O], as in `x @ W`.
    """

    transposed: bool = False

    def inputs(self, x: Tensor) -> Tensor:
        return x.reshape(1, -1, x.shape[-1])

    def outputs(self, g: Tensor) -> Tensor:
        return g.reshape(1, -1, g.shape[-1])

    def from_rows(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        return rows.reshape(shape)

    def output_shape(self, x: Tensor, outputs: int) -> Sequence[int]:
        return *x.shape[:-1], outputs

    def matrix(self, weight: Tensor) -> Tensor:
        return weight.mT if self.transposed else weight

    def gram_flops(self, x: Tensor, positions: int) -> float:
        """See `Layer`."""
        return float(positions**2 * x.shape[-1])


@register_layer(F.linear)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> LayerCall | None:
    """`F.linear`; a weight vector [D] is left to autograd."""
    return LayerCall(Linear(), input, weight, bias) if weight.ndim == 2 else None
