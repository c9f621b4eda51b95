"""The tile operations in C++ (`csrc/`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _native
from ..common.elementwise import check_rule, native_map, working_dtype
from ..common.window import as_images, check_layer, empty_output
from . import outer


def norm(a: Tensor, g: Tensor, weight: Tensor, window: list[int] | None, rule: str, q: float) -> Tensor:
    """See `tile_norm`."""
    layer, dtype, like = check_layer(window, a, g, weight), working_dtype(a, g, weight), working_dtype(g)
    check_rule(rule, q)
    if 0 in (*a.shape, *g.shape):
        return g.new_zeros(a.shape[0], dtype=like)
    a, g, weight = (t.detach().to(dtype) for t in (a, g, weight))
    if outer.is_outer(a):
        return outer.norm(a, g, weight, rule, q).to(like)
    norms = _native.core().tile_norm(
        as_images(a).numpy(), as_images(g).numpy(), weight.contiguous().numpy(),
        layer.for_core(), native_map(rule, q), q, None, torch.get_num_threads(),
    )  # fmt: skip
    return torch.from_numpy(norms).to(like)


def apply(
    a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scales: Tensor, window: list[int] | None, rule: str, q: float
) -> Tensor:
    """See `tile_apply`."""
    layer, dtype, like = check_layer(window, a, g, weight, x, scales), working_dtype(a, g, weight, x, scales), g.dtype
    check_rule(rule, q)
    a, g, x, weight, scales = (t.detach().to(dtype) for t in (a, g, x, weight, scales))
    if 0 in (*a.shape, *g.shape, *x.shape):  # no step
        return layer.layer(x, weight).to(like)
    if outer.is_outer(a):
        return outer.apply(a, g, x, weight, scales, rule, q).to(like)
    out = empty_output(x, weight.shape[0], layer, dtype)
    _native.core().tile_apply(
        as_images(a).numpy(), as_images(g).numpy(), as_images(x).numpy(), weight.contiguous().numpy(),
        scales.contiguous().numpy(), as_images(out).numpy(),
        layer.for_core(), native_map(rule, q), q, torch.get_num_threads(),
    )  # fmt: skip
    return out.to(like)
