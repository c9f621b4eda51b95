"""Per-sample weight gradients of 2-d convolutions, mapped element by element, without them and without patches in memory.

As `tiles.py`, with the convolution seen as a linear layer over patches: A [groups, D, T] with D = C / groups · kernel and
T = H'·W' positions. The C++ twin copies patches a few strips at a time from the images into scratch memory that stays in the
L2 cache. A 1-d convolution is one over images of one row.

    a, x [N, C, H, W]   images; x may be of another size       weight [O, C / groups, kernel, kernel]
    g [N, O, H', W']    gradients at the layer's output for a
    stride, dilation    (down, across)                          padding (top, bottom, left, right), zeros
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, library

from .. import _native
from .elementwise import check_rule, contribution, direction, fold, native_map, working_dtype


def reference_norm(
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
    """`Σ φ(G Aᵀ, W)` of each sample; see `conv_tile_norm`. Patches and M are stored."""
    _check(a, g, weight, stride, padding, dilation, groups, rule, q)
    dtype = working_dtype(a, g, weight)
    m = _gradients(a.to(dtype), g.to(dtype), weight, stride, padding, dilation, groups)
    return contribution(m, weight.to(dtype), rule, q).flatten(1).sum(1).to(working_dtype(g))


def reference_apply(
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
    """`s ·` the convolution of x with `δ(G Aᵀ, W)`, of each sample; see `conv_tile_apply`. Patches and M are stored."""
    _check(a, g, weight, stride, padding, dilation, groups, rule, q, x, scales)
    dtype = working_dtype(a, g, weight, x, scales)
    m = _gradients(a.to(dtype), g.to(dtype), weight, stride, padding, dilation, groups)
    d = scales.to(dtype)[:, None, None, None, None] * direction(m, weight.to(dtype), rule, q)
    d = d + weight.to(dtype) if whole else d
    n = x.shape[0]
    images = _padded(x.to(dtype), padding).reshape(1, -1, x.shape[2] + sum(padding[:2]), x.shape[3] + sum(padding[2:]))
    out = F.conv2d(images, d.flatten(0, 1), None, stride, 0, dilation, n * groups) if n else images
    return out.reshape(n, weight.shape[0], *_output_size(x, weight, stride, padding, dilation)).to(g.dtype)


@library.custom_op("saal_fast::conv_tile_norm", mutates_args=())
def conv_tile_norm(
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
    """Each sample's `Σ φ(M, W)` over its gradient M at a convolution's weight.

    Args:
        a: the layer's inputs [N, C, H, W].
        g: gradients at its outputs [N, O, H', W'].
        weight: W [O, C / groups, *kernel].
        stride: down, across.
        padding: zeros at the top, bottom, left and right.
        dilation: down, across.
        groups: groups.
        rule: "l2", "lp" or "adaptive" (`elementwise.py`).
        q: the exponent of "lp"; others ignore it.

    Returns:
        [N], of g's type, float32 at least.

    Raises:
        ValueError: shapes don't fit each other, or rule or q is none of the above.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference_norm(a, g, weight, stride, padding, dilation, groups, rule, q)


@library.custom_op("saal_fast::conv_tile_apply", mutates_args=())
def conv_tile_apply(
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
    """What each sample's step `s · δ(M, W)` at a convolution's weight adds to its output at another input.

    Args:
        a: the layer's inputs [N, C, H, W].
        g: gradients at its outputs [N, O, H', W'].
        x: other inputs [N, C, *size], often of a's size.
        weight: W [O, C / groups, *kernel].
        scales: s [N].
        stride: down, across.
        padding: zeros at the top, bottom, left and right.
        dilation: down, across.
        groups: groups.
        rule: "l2", "lp" or "adaptive" (`elementwise.py`).
        q: the exponent of "lp"; others ignore it.
        whole: add what W itself makes of x: the output after the step, without a bias.

    Returns:
        [N, O, *the output's size at x], of g's type.

    Raises:
        ValueError: shapes don't fit each other, or rule or q is none of the above.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference_apply(a, g, x, weight, scales, stride, padding, dilation, groups, rule, q, whole)


@conv_tile_norm.register_kernel("cpu")
def _norm_cpu(
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
    _check(a, g, weight, stride, padding, dilation, groups, rule, q)
    dtype = working_dtype(a, g, weight)
    like = working_dtype(g)
    if 0 in (*a.shape, *g.shape):
        return g.new_zeros(a.shape[0], dtype=like)
    a, g, weight = (t.detach().to(dtype) for t in (a, g, weight))
    norms = _native.core().tile_norm(
        a.numpy(), g.numpy(), *_layer(weight, stride, padding, dilation, groups), native_map(rule, q), q,
        None, torch.get_num_threads(),
    )  # fmt: skip
    return torch.from_numpy(norms).to(like)


@conv_tile_apply.register_kernel("cpu")
def _apply_cpu(
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
    _check(a, g, weight, stride, padding, dilation, groups, rule, q, x, scales)
    dtype = working_dtype(a, g, weight, x, scales)
    like = g.dtype
    out = empty_output(x, weight, stride, padding, dilation, dtype)
    if 0 in (*a.shape, *g.shape, *x.shape):
        return out.zero_().to(like)
    a, g, x, weight, scales = (t.detach().to(dtype) for t in (a, g, x, weight, scales))
    kernels, *layer = _layer(weight, stride, padding, dilation, groups)
    _native.core().tile_apply(
        a.numpy(), g.numpy(), x.numpy(), kernels, scales.contiguous().numpy(), out.numpy(), *layer,
        native_map(rule, q), q, whole, torch.get_num_threads(),
    )  # fmt: skip
    return out.to(like)


@conv_tile_norm.register_fake
def _norm_fake(
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
    return a.new_empty(a.shape[0], dtype=working_dtype(g))


@conv_tile_apply.register_fake
def _apply_fake(
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
    return empty_output(x, weight, stride, padding, dilation, g.dtype)


@conv_tile_norm.register_vmap
def _norm_vmap(
    info: object, in_dims: tuple[int | None, ...], a: Tensor, g: Tensor, weight: Tensor, *layer: object
) -> tuple[Tensor, int]:
    return fold(info, in_dims[:3], conv_tile_norm, (a, g, weight), (False, False, True), *layer)


@conv_tile_apply.register_vmap
def _apply_vmap(
    info: object,
    in_dims: tuple[int | None, ...],
    a: Tensor,
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    *layer: object,
) -> tuple[Tensor, int]:
    shared = (False, False, False, True, False)
    return fold(info, in_dims[:5], conv_tile_apply, (a, g, x, weight, scales), shared, *layer)


def _padded(images: Tensor, padding: list[int]) -> Tensor:
    top, bottom, left, right = padding
    return F.pad(images, (left, right, top, bottom))


def _output_size(
    images: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[int, int]:
    sizes = [
        (images.shape[2 + i] + sum(padding[2 * i : 2 * i + 2]) - (weight.shape[2 + i] - 1) * dilation[i] - 1) // stride[i]
        + 1
        for i in range(2)
    ]
    return sizes[0], sizes[1]


def empty_output(
    x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], dtype: torch.dtype
) -> Tensor:
    """Room for a layer's output [N, O, *size] at x: channels last where x has them last."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    size = (x.shape[0], weight.shape[0], *_output_size(x, weight, stride, padding, dilation))
    order = torch.channels_last if last else torch.contiguous_format
    return torch.empty(size, dtype=dtype, device=x.device, memory_format=order)


def _gradients(
    a: Tensor, g: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    """M of each sample, [N, *weight.shape]."""
    n, positions = a.shape[0], g.shape[2] * g.shape[3]
    patches = F.unfold(_padded(a, padding), tuple(weight.shape[2:]), tuple(dilation), 0, tuple(stride))
    patches = patches.reshape(n, groups, weight[0].numel(), positions)
    m = g.reshape(n, groups, weight.shape[0] // groups, positions) @ patches.mT
    return m.reshape(n, *weight.shape)


def _layer(
    weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> tuple[object, tuple[int, ...], list[int], tuple[int, int], list[int], int]:
    """What the C++ core asks of a layer."""
    before = padding[0], padding[2]
    return weight.contiguous().numpy(), tuple(weight.shape[2:]), stride, before, dilation, groups


def _check(
    a: Tensor,
    g: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rule: str,
    q: float,
    x: Tensor | None = None,
    scales: Tensor | None = None,
) -> None:
    check_rule(rule, q)
    if not (
        (len(stride), len(padding), len(dilation)) == (2, 4, 2) and min(*stride, *dilation, groups) > 0 and min(padding) >= 0
    ):
        raise ValueError(
            "expected two strides and dilations > 0, four paddings >= 0 (top, bottom, left, right) and groups > 0; "
            f"got stride={stride}, padding={padding}, dilation={dilation}, groups={groups}"
        )
    fits = a.ndim == g.ndim == weight.ndim == 4
    fits = fits and a.shape[:2] == (g.shape[0], weight.shape[1] * groups) and weight.shape[0] % groups == 0
    fits = fits and g.shape[1:] == (weight.shape[0], *_output_size(a, weight, stride, padding, dilation))
    if x is not None and scales is not None:
        fits = fits and x.ndim == 4 and x.shape[:2] == a.shape[:2] and scales.shape == a.shape[:1]
        fits = fits and min(_output_size(x, weight, stride, padding, dilation)) > 0
    if not fits:
        more = "" if x is None or scales is None else f", x {tuple(x.shape)}, scales {tuple(scales.shape)}"
        raise ValueError(
            "expected a [N, C, H, W], g [N, O, H', W'] with H', W' the layer's output for a, "
            "weight [O, C / groups, *kernel], x [N, C, *size], scales [N]; "
            f"got a {tuple(a.shape)}, g {tuple(g.shape)}, weight {tuple(weight.shape)}{more} "
            f"with stride={stride}, padding={padding}, dilation={dilation}, groups={groups}"
        )
