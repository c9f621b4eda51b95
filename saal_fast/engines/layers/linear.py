"""`out = x Wᵀ + b` over the last dimension, or `out = x W`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops.common.registration import fold
from ...ops.ghost import gram_linear, gram_norm
from .base import LayerCall, register_layer, takes_tangents
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

    def shared(self, call: LayerCall) -> Tensor | None:
        """See `SupportsSharedWeight`. `vmap` would add the bias in a pass of its own."""
        if (
            call.bias is None
            or not _plain_on_cpu(call.input, call.weight)
            or math.prod(call.input.shape[:-1]) < MIN_POSITIONS
            or takes_tangents()
        ):
            return None
        out: Tensor = _SharedLinear.apply(call.input, self.matrix(call.weight), call.bias)
        return out

    def shares_products(self, *tensors: Tensor) -> bool:
        several = math.prod(tensors[0].shape[:-1]) > 1  # of one position they are one number: more calls, nothing gained
        return several and _plain_on_cpu(*tensors)

    def products(self, x: Tensor, a: Tensor) -> Tensor:
        return self.inputs(x) @ self.inputs(a).mT

    def products_norm(self, products: Tensor, g: Tensor, bias: bool) -> Tensor:
        total: Tensor = gram_norm(products, self.outputs(g), bias)
        return total[0]

    def products_output(self, products: Tensor, g: Tensor, call: LayerCall, scale: Tensor, bias: bool) -> Tensor:
        x, weight = call.input, self.matrix(call.weight)
        with_it = call.bias if bias else None
        out: Tensor = gram_linear(products, self.outputs(g), self.inputs(x), scale.expand(1), weight, with_it, bias)
        out = out.reshape(self.output_shape(x, len(weight)))
        return out if bias or call.bias is None else out + call.bias

    def gram_flops(self, x: Tensor, positions: int) -> float:
        """See `Layer`."""
        return float(positions**2 * x.shape[-1])


MIN_POSITIONS = 8
"""Positions of a sample from which a pass over the outputs costs more than a function of torch's own in Python."""


class _SharedLinear(torch.autograd.Function):
    """`F.linear` with a weight that needs no gradient, samples folded into its positions under `vmap`."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        (weight,) = ctx.saved_tensors
        by_x, by_bias = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        return grad @ weight if by_x else None, None, grad.flatten(0, -2).sum(0) if by_bias else None

    @staticmethod
    def vmap(info: object, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, int]:
        if in_dims[2] is None:
            return fold(info, in_dims, _SharedLinear.apply, (x, weight, bias), (False, True, True))
        out, _ = fold(info, in_dims[:2], F.linear, (x, weight), (False, True))
        bias = bias.movedim(in_dims[2], 0)
        return out + bias.reshape(len(bias), *(1,) * (out.ndim - 2), -1), 0


def _plain_on_cpu(*tensors: Tensor) -> bool:
    """Whether these are a CPU's, of one type, and no autocast casts them."""
    same = all(t.device.type == "cpu" and t.dtype == tensors[0].dtype for t in tensors)
    return same and not torch.is_autocast_enabled("cpu")


@register_layer(F.linear)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> LayerCall | None:
    """`F.linear`; a weight vector [D] is left to autograd."""
    return LayerCall(Linear(), input, weight, bias) if weight.ndim == 2 else None
