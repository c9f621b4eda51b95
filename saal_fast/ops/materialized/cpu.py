"""The operations with materialized gradients in C++ (`csrc/`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _native
from ..common.elementwise import check_rule, native_map, working_dtype
from ..common.window import Window, as_images, check_layer, empty_output
from . import reference


def materialize(
    a: Tensor, g: Tensor, weight: Tensor, window: list[int] | None, rule: str, q: float
) -> tuple[Tensor, Tensor]:
    """See `materialize_gradient`."""
    layer, dtype, like = check_layer(window, a, g, weight), working_dtype(a, g, weight), working_dtype(g)
    check_rule(rule, q)
    if 0 in (*a.shape, *g.shape):
        return reference.materialize(a, g, weight, window, rule, q)
    a, g, weight = (t.detach().to(dtype) for t in (a, g, weight))
    size = reference.materialized_size(weight, layer.groups)
    room = torch.empty if size == weight.numel() else torch.zeros  # what is rounded up is not written
    gradient = room(a.shape[0], size, dtype=dtype, device="cpu")
    norms = _native.core().tile_norm(
        as_images(a).numpy(), as_images(g).numpy(), weight.contiguous().numpy(),
        layer.for_core(), native_map(rule, q), q, gradient.numpy(), torch.get_num_threads(),
    )  # fmt: skip
    return torch.from_numpy(norms).to(like), gradient


def apply(
    gradient: Tensor, x: Tensor, weight: Tensor, scales: Tensor, window: list[int] | None, rule: str, q: float
) -> Tensor:
    """See `apply_materialized`."""
    layer, dtype, like = Window.of(window), gradient.dtype, x.dtype
    out = empty_output(x, weight.shape[0], layer, dtype)
    if 0 in (*x.shape, *weight.shape):
        return out.zero_().to(like)
    x, weight, scales = (t.detach().to(dtype) for t in (x, weight, scales))
    _native.core().apply_materialized(
        gradient.contiguous().numpy(), as_images(x).numpy(), weight.contiguous().numpy(), scales.contiguous().numpy(),
        as_images(out).numpy(), layer.for_core(), native_map(rule, q), q, torch.get_num_threads(),
    )  # fmt: skip
    return out.to(like)
