"""The ghost operations of a linear layer by batched products, with fewer passes over memory than the reference.

Convolutions take the reference: the engine gives them no place on a CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
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


def gram_norm(products: Tensor, g: Tensor, bias: bool) -> Tensor:
    """See the operator."""
    reference.check_products(products, g, g)
    gradients = _products(g, g)
    norms = (products.flatten(1)[:, None] @ gradients.to(products.dtype).flatten(1)[..., None])[:, 0, 0]
    return (norms + gradients.sum((1, 2)) if bias else norms).to(working_dtype(g))


def gram_linear(
    products: Tensor, g: Tensor, x: Tensor, scales: Tensor, weight: Tensor, bias: Tensor | None, with_bias: bool
) -> Tensor:
    """See the operator."""
    reference.check_products(products, g, x, scales, weight)
    if {t.dtype for t in (products, g, x, weight)} != {working_dtype(x)}:
        return reference.gram_linear(products, g, x, scales, weight, bias, with_bias)
    by = scales.to(products.dtype)[:, None, None]
    scaled = torch.add(products, 1).mul_(by) if with_bias else products * by
    return F.linear(x, weight, bias).baddbmm_(scaled, g)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """`a bᵀ` of each sample [N, T, T'], by products in the tensors' own type; float32 at least."""
    common = torch.promote_types(a.dtype, b.dtype)
    return (a.to(common) @ b.to(common).mT).to(working_dtype(a, b))
