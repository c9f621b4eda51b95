"""Norm and effect of per-sample weight gradients `G Aᵀ` that stay factored, for the rule that is linear in them: L2.

    ‖G Aᵀ‖² = ⟨AᵀA, GᵀG⟩                 the ghost norm (Goodfellow 2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679)
    base + s · (G Aᵀ) X' = base + s · G (AᵀX')     the sample's own step, carried into the perturbed forward pass

A bias is a row of ones in A and X', so that both Gram matrices of inputs gain 1 everywhere. Layouts are those of `tiles.py`
and `conv_tiles.py`:

    a [N, T, D] or [N, C, H, W]      x [N, T', D] or images, of another size perhaps
    g [N, T, O] or [N, O, H', W']    base like the layer's output at x

The reference is PyTorch's batched products, in float32 at least, and so is a linear layer's twin for CPUs, with fewer passes
over memory; the CUDA twin (`triton/ghost.py`) stores neither T × T matrices nor patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, library

from . import triton as twins
from .elementwise import fold, working_dtype


def reference_norm(a: Tensor, g: Tensor, bias: bool) -> Tensor:
    """See `ghost_norm`."""
    _check_rows(a, g)
    dtype = working_dtype(a, g)
    a, g = a.to(dtype), g.to(dtype)
    return ((a @ a.mT + int(bias)) * (g @ g.mT)).sum((1, 2))


def reference_apply(a: Tensor, g: Tensor, x: Tensor, scales: Tensor, base: Tensor | None, bias: bool) -> Tensor:
    """See `ghost_apply`."""
    _check_rows(a, g, x, scales, base)
    dtype = working_dtype(a, g, x, scales)
    products = scales.to(dtype)[:, None, None] * (x.to(dtype) @ a.to(dtype).mT + int(bias))
    return _onto(products @ g.to(dtype), base, g)


def reference_conv_norm(
    a: Tensor,
    g: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    bias: bool,
) -> Tensor:
    """See `conv_ghost_norm`. Patches are stored."""
    _check_images(a, g, kernel, stride, padding, dilation, groups)
    dtype = working_dtype(a, g)
    columns = _columns(a.to(dtype), kernel, stride, padding, dilation, groups)
    rows = g.to(dtype).reshape(g.shape[0], groups, g.shape[1] // groups, columns.shape[-1])
    return ((columns.mT @ columns + int(bias)) * (rows.mT @ rows)).sum((1, 2, 3))


def reference_conv_apply(
    a: Tensor,
    g: Tensor,
    x: Tensor,
    scales: Tensor,
    base: Tensor | None,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    bias: bool,
) -> Tensor:
    """See `conv_ghost_apply`. Patches are stored."""
    _check_images(a, g, kernel, stride, padding, dilation, groups, x, scales, base)
    dtype = working_dtype(a, g, x, scales)
    columns, moved = (_columns(t.to(dtype), kernel, stride, padding, dilation, groups) for t in (a, x))
    rows = g.to(dtype).reshape(g.shape[0], groups, g.shape[1] // groups, columns.shape[-1])
    pushed = rows @ (scales.to(dtype)[:, None, None, None] * (columns.mT @ moved + int(bias)))
    size = _output_size(x, kernel, stride, padding, dilation)
    return _onto(pushed.reshape(*g.shape[:2], *size), base, g)


@library.custom_op("saal_fast::ghost_norm", mutates_args=())
def ghost_norm(a: Tensor, g: Tensor, bias: bool) -> Tensor:
    """Each sample's `‖G Aᵀ‖²`, and with a bias its gradient's square too.

    Args:
        a: a linear layer's inputs [N, T, D].
        g: gradients at its outputs [N, T, O].
        bias: whether the layer's bias is perturbed too.

    Returns:
        [N], in the widest of the types, float32 at least.

    Raises:
        ValueError: shapes don't fit each other.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference_norm(a, g, bias)


@library.custom_op("saal_fast::ghost_apply", mutates_args=())
def ghost_apply(a: Tensor, g: Tensor, x: Tensor, scales: Tensor, base: Tensor | None, bias: bool) -> Tensor:
    """What each sample's step `s · G Aᵀ` makes of the layer's output at another input.

    Args:
        a: a linear layer's inputs [N, T, D].
        g: gradients at its outputs [N, T, O].
        x: other inputs [N, T', D].
        scales: s [N].
        base: what the step's effect is added to, [N, T', O]: the layer's output at x; None for zero.
        bias: whether the layer's bias is perturbed too.

    Returns:
        `base + s · X' (A Gᵀ)` [N, T', O], of base's type, or of g's.

    Raises:
        ValueError: shapes don't fit each other.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference_apply(a, g, x, scales, base, bias)


@library.custom_op("saal_fast::conv_ghost_norm", mutates_args=())
def conv_ghost_norm(
    a: Tensor,
    g: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    bias: bool,
) -> Tensor:
    """Each sample's `‖G Aᵀ‖²` for a 2-d convolution seen through its patches.

    Args:
        a: the layer's inputs [N, C, H, W].
        g: gradients at its outputs [N, O, H', W'].
        kernel: down, across.
        stride: down, across.
        padding: zeros at the top, bottom, left and right.
        dilation: down, across.
        groups: groups.
        bias: whether the layer's bias is perturbed too.

    Returns:
        [N], in the widest of the types, float32 at least.

    Raises:
        ValueError: shapes don't fit each other.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference_conv_norm(a, g, kernel, stride, padding, dilation, groups, bias)


@library.custom_op("saal_fast::conv_ghost_apply", mutates_args=())
def conv_ghost_apply(
    a: Tensor,
    g: Tensor,
    x: Tensor,
    scales: Tensor,
    base: Tensor | None,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    bias: bool,
) -> Tensor:
    """What each sample's step `s · G Aᵀ` makes of a 2-d convolution's output at another input.

    Args:
        a: the layer's inputs [N, C, H, W].
        g: gradients at its outputs [N, O, H', W'].
        x: other inputs [N, C, *size].
        scales: s [N].
        base: what the step's effect is added to: the layer's output at x; None for zero.
        kernel: down, across.
        stride: down, across.
        padding: zeros at the top, bottom, left and right.
        dilation: down, across.
        groups: groups.
        bias: whether the layer's bias is perturbed too.

    Returns:
        [N, O, *the output's size at x], of base's type, or of g's.

    Raises:
        ValueError: shapes don't fit each other.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference_conv_apply(a, g, x, scales, base, kernel, stride, padding, dilation, groups, bias)


@ghost_norm.register_kernel("cpu")
def _norm_cpu(a: Tensor, g: Tensor, bias: bool) -> Tensor:
    return cpu_norm(a, g, bias)


@ghost_apply.register_kernel("cpu")
def _apply_cpu(a: Tensor, g: Tensor, x: Tensor, scales: Tensor, base: Tensor | None, bias: bool) -> Tensor:
    return cpu_apply(a, g, x, scales, base, bias)


def cpu_norm(a: Tensor, g: Tensor, bias: bool) -> Tensor:
    """See `ghost_norm`."""
    _check_rows(a, g)
    dtype = working_dtype(a, g)
    inputs, gradients = _products(a, a), _products(g, g)
    if bias:
        inputs += 1
    return (inputs.flatten(1)[:, None] @ gradients.flatten(1)[..., None])[:, 0, 0].to(dtype)


def cpu_apply(a: Tensor, g: Tensor, x: Tensor, scales: Tensor, base: Tensor | None, bias: bool) -> Tensor:
    """See `ghost_apply`."""
    _check_rows(a, g, x, scales, base)
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


@ghost_norm.register_kernel("cuda")
def _norm_cuda(a: Tensor, g: Tensor, bias: bool) -> Tensor:
    if not twins.usable(a, g):
        return reference_norm(a, g, bias)
    from .triton import ghost  # noqa: PLC0415  # triton may be missing

    _check_rows(a, g)
    return ghost.norm(a, g, bias)


@ghost_apply.register_kernel("cuda")
def _apply_cuda(a: Tensor, g: Tensor, x: Tensor, scales: Tensor, base: Tensor | None, bias: bool) -> Tensor:
    if not twins.usable(a, g, x, scales, base):
        return reference_apply(a, g, x, scales, base, bias)
    from .triton import ghost  # noqa: PLC0415  # triton may be missing

    _check_rows(a, g, x, scales, base)
    return ghost.apply(a, g, x, scales, base, _apply_fake(a, g, x, scales, base, bias), bias)


@conv_ghost_norm.register_kernel("cuda")
def _conv_norm_cuda(
    a: Tensor,
    g: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    bias: bool,
) -> Tensor:
    if not twins.usable(a, g):
        return reference_conv_norm(a, g, kernel, stride, padding, dilation, groups, bias)
    from .triton import ghost, launch  # noqa: PLC0415  # triton may be missing

    _check_images(a, g, kernel, stride, padding, dilation, groups)
    return ghost.norm(a, g, bias, launch.window(kernel, stride, padding, dilation, groups))


@conv_ghost_apply.register_kernel("cuda")
def _conv_apply_cuda(
    a: Tensor,
    g: Tensor,
    x: Tensor,
    scales: Tensor,
    base: Tensor | None,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    bias: bool,
) -> Tensor:
    if not twins.usable(a, g, x, scales, base):
        return reference_conv_apply(a, g, x, scales, base, kernel, stride, padding, dilation, groups, bias)
    from .triton import ghost, launch  # noqa: PLC0415  # triton may be missing

    _check_images(a, g, kernel, stride, padding, dilation, groups, x, scales, base)
    out = _conv_apply_fake(a, g, x, scales, base, kernel, stride, padding, dilation, groups, bias)
    return ghost.apply(a, g, x, scales, base, out, bias, launch.window(kernel, stride, padding, dilation, groups))


@ghost_norm.register_fake
def _norm_fake(a: Tensor, g: Tensor, bias: bool) -> Tensor:
    return a.new_empty(a.shape[0], dtype=working_dtype(a, g))


@ghost_apply.register_fake
def _apply_fake(a: Tensor, g: Tensor, x: Tensor, scales: Tensor, base: Tensor | None, bias: bool) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], g.shape[2], dtype=(g if base is None else base).dtype)


@conv_ghost_norm.register_fake
def _conv_norm_fake(
    a: Tensor,
    g: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    bias: bool,
) -> Tensor:
    return a.new_empty(a.shape[0], dtype=working_dtype(a, g))


@conv_ghost_apply.register_fake
def _conv_apply_fake(
    a: Tensor,
    g: Tensor,
    x: Tensor,
    scales: Tensor,
    base: Tensor | None,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    bias: bool,
) -> Tensor:
    size = _output_size(x, kernel, stride, padding, dilation)
    return x.new_empty(*g.shape[:2], *size, dtype=(g if base is None else base).dtype)


@ghost_norm.register_vmap
def _norm_vmap(info: object, in_dims: tuple[int | None, ...], a: Tensor, g: Tensor, bias: bool) -> tuple[Tensor, int]:
    return fold(info, in_dims[:2], ghost_norm, (a, g), (False,) * 2, bias)


@ghost_apply.register_vmap
def _apply_vmap(
    info: object,
    in_dims: tuple[int | None, ...],
    a: Tensor,
    g: Tensor,
    x: Tensor,
    scales: Tensor,
    base: Tensor | None,
    bias: bool,
) -> tuple[Tensor, int]:
    return fold(info, in_dims[:5], ghost_apply, (a, g, x, scales, base), (False,) * 5, bias)


@conv_ghost_norm.register_vmap
def _conv_norm_vmap(
    info: object, in_dims: tuple[int | None, ...], a: Tensor, g: Tensor, *layer: object
) -> tuple[Tensor, int]:
    return fold(info, in_dims[:2], conv_ghost_norm, (a, g), (False,) * 2, *layer)


@conv_ghost_apply.register_vmap
def _conv_apply_vmap(
    info: object,
    in_dims: tuple[int | None, ...],
    a: Tensor,
    g: Tensor,
    x: Tensor,
    scales: Tensor,
    base: Tensor | None,
    *layer: object,
) -> tuple[Tensor, int]:
    return fold(info, in_dims[:5], conv_ghost_apply, (a, g, x, scales, base), (False,) * 5, *layer)


def _onto(pushed: Tensor, base: Tensor | None, g: Tensor) -> Tensor:
    """The effect, added to what there is."""
    return pushed.to(g.dtype) if base is None else (pushed + base).to(base.dtype)


def _columns(
    images: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    """Patches as A [N, groups, D, T]."""
    top, bottom, left, right = padding
    padded = F.pad(images, (left, right, top, bottom))
    patches = F.unfold(padded, tuple(kernel), tuple(dilation), 0, tuple(stride))
    depth = images.shape[1] // groups * kernel[0] * kernel[1]
    return patches.reshape(images.shape[0], groups, depth, patches.shape[-1])


def _output_size(
    images: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[int, int]:
    down, across = (
        (images.shape[2 + i] + sum(padding[2 * i : 2 * i + 2]) - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1
        for i in range(2)
    )
    return down, across


def _check_rows(
    a: Tensor, g: Tensor, x: Tensor | None = None, scales: Tensor | None = None, base: Tensor | None = None
) -> None:
    fits = a.ndim == g.ndim == 3 and a.shape[:2] == g.shape[:2]
    if x is not None and scales is not None:
        fits = fits and x.ndim == 3 and x.shape[::2] == a.shape[::2] and scales.shape == a.shape[:1]
        fits = fits and (base is None or base.shape == (*x.shape[:2], g.shape[2]))
    if not fits:
        got = _shapes(a=a, g=g, x=x, scales=scales, base=base)
        raise ValueError(f"expected a [N, T, D], g [N, T, O], x [N, T', D], scales [N], base [N, T', O]; got {got}")


def _check_images(
    a: Tensor,
    g: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    x: Tensor | None = None,
    scales: Tensor | None = None,
    base: Tensor | None = None,
) -> None:
    numbers = len(kernel) == len(stride) == len(dilation) == 2 and len(padding) == 4
    if not (numbers and min(*kernel, *stride, *dilation, groups) > 0 and min(padding) >= 0):
        raise ValueError(
            "expected two numbers > 0 each for kernel, stride and dilation, four paddings >= 0 (top, bottom, left, right) "
            f"and groups > 0; got kernel={kernel}, stride={stride}, dilation={dilation}, padding={padding}, groups={groups}"
        )
    fits = a.ndim == g.ndim == 4 and a.shape[0] == g.shape[0] and a.shape[1] % groups == g.shape[1] % groups == 0
    fits = fits and g.shape[2:] == _output_size(a, kernel, stride, padding, dilation)
    if x is not None and scales is not None:
        fits = fits and x.ndim == 4 and x.shape[:2] == a.shape[:2] and scales.shape == a.shape[:1]
        size = _output_size(x, kernel, stride, padding, dilation) if fits else (0, 0)
        fits = fits and min(size) > 0 and (base is None or base.shape == (*g.shape[:2], *size))
    if not fits:
        raise ValueError(
            "expected a [N, C, H, W], g [N, O, H', W'] with H', W' the layer's output for a, x [N, C, *size], scales [N], "
            f"base like the output at x; got {_shapes(a=a, g=g, x=x, scales=scales, base=base)} with kernel={kernel}, "
            f"stride={stride}, padding={padding}, dilation={dilation}, groups={groups}"
        )


def _shapes(**tensors: Tensor | None) -> str:
    return ", ".join(f"{name} {list(t.shape)}" for name, t in tensors.items() if t is not None)
