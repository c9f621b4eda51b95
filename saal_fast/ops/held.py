"""Per-sample weight gradients of 2-d convolutions that are formed once and kept, since forming them again costs more.

Where a layer has many positions and a small weight (the early layers of a vision network), `M = G Aᵀ` is cheaper to keep
than to form twice: `hold` forms it by the same tiles as `conv_tiles.py`, sums `φ(M, W)` on the way, and keeps it in the
order in which `held_apply` reads it back. That runs the layer with every sample's own weight `W + s · δ(M, W)`, at the cost
of a forward pass. A linear layer is a convolution of 1×1 over its positions. What is kept is for `held_apply` on the same
device only: its order is the twin's own. Shapes are those of `conv_tiles.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, library

from .. import _native
from .conv_tiles import _check, _gradients, _layer, _output_size, _padded, empty_output
from .elementwise import contribution, direction, fold, native_map, working_dtype

WIDEST, STRIP = 32, 8  # outputs and inputs are rounded up to these


def held_size(weight: Tensor, groups: int) -> int:
    """Numbers that the gradient at a weight [O, C / groups, *kernel] takes, a sample."""
    outputs, inputs = weight.shape[0] // groups, weight[0].numel()
    return groups * -(-outputs // WIDEST) * WIDEST * -(-inputs // STRIP) * STRIP


def reference_hold(
    a: Tensor,
    g: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rule: str,
    q: float,
) -> tuple[Tensor, Tensor]:
    """See `hold`. Patches are stored; M [O, C / groups, *kernel] lies first, zeros after it."""
    _check(a, g, weight, stride, padding, dilation, groups, rule, q)
    dtype = working_dtype(a, g, weight)
    m = _gradients(a.to(dtype), g.to(dtype), weight, stride, padding, dilation, groups)
    norms = contribution(m, weight.to(dtype), rule, q).flatten(1).sum(1)
    return norms.to(working_dtype(g)), F.pad(m.flatten(1), (0, held_size(weight, groups) - weight.numel()))


def reference_apply(
    held: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rule: str,
    q: float,
) -> Tensor:
    """See `held_apply`, with what `reference_hold` kept."""
    dtype, n = held.dtype, x.shape[0]
    w = weight.to(dtype)
    m = held[:, : weight.numel()].reshape(n, *weight.shape)
    moved = w + scales.to(dtype)[:, None, None, None, None] * direction(m, w, rule, q)
    images = _padded(x.to(dtype), padding).reshape(1, -1, x.shape[2] + sum(padding[:2]), x.shape[3] + sum(padding[2:]))
    out = F.conv2d(images, moved.flatten(0, 1), None, stride, 0, dilation, n * groups) if n else images
    return out.reshape(n, weight.shape[0], *_output_size(x, weight, stride, padding, dilation)).to(x.dtype)


@library.custom_op("saal_fast::hold", mutates_args=())
def hold(
    a: Tensor,
    g: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rule: str,
    q: float,
) -> tuple[Tensor, Tensor]:
    """Each sample's `Σ φ(M, W)` over its gradient M at a convolution's weight, and M itself for `held_apply`.

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
        [N], of g's type, float32 at least; and [N, `held_size`], of the widest of the types, float32 at least.

    Raises:
        ValueError: shapes don't fit each other, or rule or q is none of the above.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference_hold(a, g, weight, stride, padding, dilation, groups, rule, q)


@library.custom_op("saal_fast::held_apply", mutates_args=())
def held_apply(
    held: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rule: str,
    q: float,
) -> Tensor:
    """A convolution with every sample's own weight `W + s · δ(M, W)`, without a bias.

    Args:
        held: M, as `hold` returned it for the same layer and rule [N, `held_size`].
        x: inputs [N, C, *size].
        weight: W [O, C / groups, *kernel].
        scales: s [N].
        stride: down, across.
        padding: zeros at the top, bottom, left and right.
        dilation: down, across.
        groups: groups.
        rule: "l2", "lp" or "adaptive" (`elementwise.py`).
        q: the exponent of "lp"; others ignore it.

    Returns:
        [N, O, *the output's size at x], of x's type.

    Raises:
        ValueError: shapes don't fit each other.
    """
    return reference_apply(held, x, weight, scales, stride, padding, dilation, groups, rule, q)


@hold.register_kernel("cpu")
def _hold_cpu(
    a: Tensor,
    g: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rule: str,
    q: float,
) -> tuple[Tensor, Tensor]:
    _check(a, g, weight, stride, padding, dilation, groups, rule, q)
    if 0 in (*a.shape, *g.shape):
        return reference_hold(a, g, weight, stride, padding, dilation, groups, rule, q)
    dtype, like = working_dtype(a, g, weight), working_dtype(g)
    a, g, weight = (t.detach().to(dtype) for t in (a, g, weight))
    size = held_size(weight, groups)
    room = torch.empty if size == weight.numel() else torch.zeros  # what is rounded up is not written
    held = room(a.shape[0], size, dtype=dtype)
    norms = _native.core().tile_norm(
        a.numpy(), g.numpy(), *_layer(weight, stride, padding, dilation, groups), native_map(rule, q), q,
        held.numpy(), torch.get_num_threads(),
    )  # fmt: skip
    return torch.from_numpy(norms).to(like), held


@held_apply.register_kernel("cpu")
def _apply_cpu(
    held: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rule: str,
    q: float,
) -> Tensor:
    dtype, like = held.dtype, x.dtype
    out = empty_output(x, weight, stride, padding, dilation, dtype)
    if 0 in (*x.shape, *weight.shape):
        return out.zero_().to(like)
    x, weight, scales = (t.detach().to(dtype) for t in (x, weight, scales))
    kernels, *layer = _layer(weight, stride, padding, dilation, groups)
    _native.core().held_apply(
        held.contiguous().numpy(), x.numpy(), kernels, scales.contiguous().numpy(), out.numpy(), *layer,
        native_map(rule, q), q, True, torch.get_num_threads(),
    )  # fmt: skip
    return out.to(like)


@hold.register_fake
def _hold_fake(
    a: Tensor,
    g: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rule: str,
    q: float,
) -> tuple[Tensor, Tensor]:
    size, dtype = held_size(weight, groups), working_dtype(a, g, weight)
    return a.new_empty(a.shape[0], dtype=working_dtype(g)), a.new_empty(a.shape[0], size, dtype=dtype)


@held_apply.register_fake
def _apply_fake(
    held: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    rule: str,
    q: float,
) -> Tensor:
    return empty_output(x, weight, stride, padding, dilation, x.dtype)


@hold.register_vmap
def _hold_vmap(
    info: object, in_dims: tuple[int | None, ...], a: Tensor, g: Tensor, weight: Tensor, *layer: object
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    return fold(info, in_dims[:3], hold, (a, g, weight), (False, False, True), *layer)


@held_apply.register_vmap
def _apply_vmap(
    info: object,
    in_dims: tuple[int | None, ...],
    held: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    *layer: object,
) -> tuple[Tensor, int]:
    return fold(info, in_dims[:4], held_apply, (held, x, weight, scales), (False, False, True, False), *layer)
