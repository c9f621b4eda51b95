"""What the ghost operations compute, by PyTorch's batched products; patches and T × T matrices are stored."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..common.elementwise import working_dtype
from ..common.window import Window, check_layer, output_shape


def norm(a: Tensor, g: Tensor, window: list[int] | None, bias: bool) -> Tensor:
    """See `ghost_norm`."""
    layer, dtype = check_layer(window, a, g), working_dtype(a, g)
    a, g = layer.unfold(a.to(dtype)), layer.outputs(g.to(dtype))
    return ((a.mT @ a + int(bias)) * (g.mT @ g)).sum((1, 2, 3))


def apply(
    a: Tensor, g: Tensor, x: Tensor, scales: Tensor, base: Tensor | None, window: list[int] | None, bias: bool
) -> Tensor:
    """See `ghost_apply`."""
    layer = check_layer(window, a, g, x=x, scales=scales, base=base)
    dtype = working_dtype(a, g, x, scales)
    products = layer.unfold(a.to(dtype)).mT @ layer.unfold(x.to(dtype)) + int(bias)
    step = (layer.outputs(g.to(dtype)) @ (scales.to(dtype)[:, None, None, None] * products)).flatten(1, 2)
    out = room_for_output(g, x, base, layer)
    step = step.mT if x.ndim == 3 else step.reshape(out.shape)
    return out.copy_(step if base is None else step + base)


def gram_norm(products: Tensor, g: Tensor, bias: bool) -> Tensor:
    """See the operator."""
    check_products(products, g, g)
    g = g.to(working_dtype(g))
    return ((products + int(bias)) * (g @ g.mT)).sum((1, 2))


def gram_linear(
    products: Tensor, g: Tensor, x: Tensor, scales: Tensor, weight: Tensor, bias: Tensor | None, with_bias: bool
) -> Tensor:
    """See the operator."""
    check_products(products, g, x, scales, weight)
    dtype = working_dtype(g, x, scales)
    step = (scales.to(dtype)[:, None, None] * (products + int(with_bias)).to(dtype)) @ g.to(dtype)
    return (F.linear(x, weight, bias) + step).to(x.dtype)


def check_products(
    products: Tensor, g: Tensor, x: Tensor, scales: Tensor | None = None, weight: Tensor | None = None
) -> None:
    """Raises ValueError where shapes don't fit each other."""
    fits = products.ndim == g.ndim == x.ndim == 3 and products.shape == (len(g), x.shape[1], g.shape[1]) and len(g) == len(x)
    fits = fits and (scales is None or scales.shape == (len(g),))
    if not fits or (weight is not None and weight.shape != (g.shape[2], x.shape[2])):
        named = {"products": products, "g": g, "x": x, "scales": scales, "weight": weight}
        got = ", ".join(f"{name} {list(t.shape)}" for name, t in named.items() if t is not None)
        raise ValueError(f"expected products [N, T', T], g [N, T, O], x [N, T', D], scales [N], weight [O, D]; got {got}")


def room_for_output(g: Tensor, x: Tensor, base: Tensor | None, window: Window) -> Tensor:
    """Room for `ghost_apply`'s output."""
    shape = output_shape(x, g.shape[2 if g.ndim == 3 else 1], window)
    return x.new_empty(shape, dtype=(g if base is None else base).dtype)
