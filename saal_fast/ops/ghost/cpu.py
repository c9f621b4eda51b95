"""The ghost operations of a linear layer by batched products, with fewer passes over memory than the reference.

Convolutions take the reference: the engine gives them no place on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.elementwise import working_dtype
from ..common.window import check_layer
from . import reference


def norm(a: Tensor, g: Tensor, window: list[int] | None, bias: bool) -> Tensor:
    """See `ghost_norm`."""
    if window is not None:
        return reference.norm(a, g, window, bias)
    check_layer(window, a, g)
    inputs, gradients = _products(a, a), _products(g, g)
    if bias:
        inputs += 1
    return (inputs.flatten(1)[:, None] @ gradients.flatten(1)[..., None])[:, 0, 0].to(working_dtype(a, g))


def apply(
    a: Tensor, g: Tensor, x: Tensor, scales: Tensor, base: Tensor | None, window: list[int] | None, bias: bool
) -> Tensor:
    """See `ghost_apply`."""
    if window is not None:
        return reference.apply(a, g, x, scales, base, window, bias)
    check_layer(window, a, g, x=x, scales=scales, base=base)
    like = g if base is None else base
    products = _products(x, a)
    if bias:
        products += 1
    products *= scales.to(products.dtype)[:, None, None]
    g = g.to(products.dtype)
    out = products @ g if base is None else torch.baddbmm(base.to(products.dtype), products, g)
    return out.to(like.dtype)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """`a bᵀ` of each sample [N, T, T'], by products in the tensors' own type; float32 at least."""
    common = torch.promote_types(a.dtype, b.dtype)
    return (a.to(common) @ b.to(common).mT).to(working_dtype(a, b))
