"""What the ghost operations compute, by PyTorch's batched products; patches and T × T matrices are stored."""

from __future__ import annotations

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


def room_for_output(g: Tensor, x: Tensor, base: Tensor | None, window: Window) -> Tensor:
    """Room for `ghost_apply`'s output."""
    shape = output_shape(x, g.shape[2 if g.ndim == 3 else 1], window)
    return x.new_empty(shape, dtype=(g if base is None else base).dtype)
