"""`out_o = xᵀ W_o y + b_o`: a linear layer of all products of x's numbers with y's, which nobody writes down.

The Gram matrix of the products is the product of Gram matrices: `(x ⊗ y)ᵀ(x' ⊗ y') = (xᵀx') (yᵀy')`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import LayerCall, register_layer, register_replacement


@dataclass(frozen=True)
class Bilinear:
    """Geometry of a bilinear layer; its input is x and y side by side.

    Attributes:
        width: of x.
    """

    width: int

    def unfold_input(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        first, second = self._rows(x)
        return (first[..., None] * second[..., None, :]).flatten(2).mT

    def gram(self, a: Tensor, x: Tensor) -> Tensor:
        """See `Layer`."""
        (first, second), (other_first, other_second) = self._rows(a), self._rows(x)
        return (first @ other_first.mT) * (second @ other_second.mT)

    def flatten_grad(self, g: Tensor) -> Tensor:
        """See `Layer`."""
        return g.reshape(1, -1, g.shape[-1]).mT

    def unflatten_output(self, y: Tensor, like: Tensor) -> Tensor:
        """See `Layer`."""
        return y.mT.reshape(like.shape)

    def gram_flops(self, x: Tensor, positions: int) -> float:
        """See `Layer`."""
        return float(positions**2 * x.shape[-1])

    def matrix(self, weight: Tensor) -> Tensor:
        """See `Layer`."""
        return weight

    def _rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.reshape(1, -1, x.shape[-1]).tensor_split((self.width,), -1)
        return first, second


@register_replacement(F.bilinear)
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.bilinear` by a product of matrices and one of each position."""
    outputs, width, _ = weight.shape
    of_second = F.linear(input2, weight.flatten(0, 1)).reshape(*input2.shape[:-1], outputs, width)
    out: Tensor = (of_second @ input1[..., None]).squeeze(-1)
    return out if bias is None else out + bias


@register_layer(F.bilinear)
def read_bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> LayerCall:
    """`F.bilinear`."""
    return LayerCall(Bilinear(input1.shape[-1]), torch.cat([input1, input2], -1), weight, bias)
