"""Registers the Triton twins of the operations in `tiles.py` and `conv_tiles.py`, whose own files hold the C++ ones."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .. import conv_tiles, tiles
from ..elementwise import native_map, working_dtype
from . import usable


@tiles.tile_norm.register_kernel("cuda")
def _tile_norm(a: Tensor, g: Tensor, weight: Tensor, rule: str, q: float, squared: Tensor | None = None) -> Tensor:
    if not usable(a, g, weight):
        return tiles.reference_norm(a, g, weight, rule, q, squared)
    tiles._check(a, g, weight, rule, q, squared)
    if a.shape[1] == 1:
        dtype = working_dtype(a, g, weight)
        return tiles.outer_norm(a[:, 0].to(dtype), g[:, 0].to(dtype), weight.to(dtype), rule, q, squared)
    from . import tiles as twin  # noqa: PLC0415  # triton may be missing

    return twin.norm(a, g, weight, native_map(rule, q), q)


@tiles.tile_apply.register_kernel("cuda")
def _tile_apply(
    a: Tensor,
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    rule: str,
    q: float,
    squared: Tensor | None = None,
    whole: bool = False,
) -> Tensor:
    if not usable(a, g, x, weight, scales):
        return tiles.reference_apply(a, g, x, weight, scales, rule, q, squared, whole)
    tiles._check(a, g, weight, rule, q, squared, x, scales)
    if a.shape[1] == 1:
        dtype = working_dtype(a, g, x, weight, scales)
        wide = (a[:, 0].to(dtype), g[:, 0].to(dtype), x.to(dtype), weight.to(dtype), scales.to(dtype))
        return tiles.outer_apply(*wide, rule, q, squared, whole).to(g.dtype)
    from . import tiles as twin  # noqa: PLC0415  # triton may be missing

    out = g.new_empty(x.shape[0], x.shape[1], g.shape[2])
    push = twin.apply(a, g, x, weight, scales, out, native_map(rule, q), q)
    return push + F.linear(x, weight) if whole else push


@conv_tiles.conv_tile_norm.register_kernel("cuda")
def _conv_tile_norm(
    a: Tensor,
    g: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rule: str,
    q: float,
) -> Tensor:
    if not usable(a, g, weight):
        return conv_tiles.reference_norm(a, g, weight, stride, padding, dilation, groups, rule, q)
    conv_tiles._check(a, g, weight, stride, padding, dilation, groups, rule, q)
    from . import launch  # noqa: PLC0415  # triton may be missing
    from . import tiles as twin  # noqa: PLC0415

    window = launch.window(weight.shape[2:], stride, padding, dilation, groups)
    return twin.norm(a, g, weight, native_map(rule, q), q, window)


@conv_tiles.conv_tile_apply.register_kernel("cuda")
def _conv_tile_apply(
    a: Tensor,
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rule: str,
    q: float,
    whole: bool = False,
) -> Tensor:
    if not usable(a, g, x, weight, scales):
        return conv_tiles.reference_apply(a, g, x, weight, scales, stride, padding, dilation, groups, rule, q, whole)
    conv_tiles._check(a, g, weight, stride, padding, dilation, groups, rule, q, x, scales)
    from . import launch  # noqa: PLC0415  # triton may be missing
    from . import tiles as twin  # noqa: PLC0415

    window = launch.window(weight.shape[2:], stride, padding, dilation, groups)
    size = conv_tiles._output_size(x, weight, stride, padding, dilation)
    out = g.new_empty(x.shape[0], weight.shape[0], *size)
    push = twin.apply(a, g, x, weight, scales, out, native_map(rule, q), q, window)
    if not whole:
        return push
    top, bottom, left, right = padding
    return push + F.conv2d(F.pad(x, (left, right, top, bottom)), weight, None, stride, 0, dilation, groups)
