"""Per-sample weight gradients of linear layers, mapped element by element without being stored.

A sample's gradient at a weight W [O, D] is `M = G Aᵀ` over its T positions. As in the ghost-clipping literature (Goodfellow
2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679; Bu et al. 2022, arXiv:2205.10683) G and A are kept instead of M.
A Gram matrix serves rules linear in M only; the others (see `elementwise.py`) need every element of M, but one tile of it at
a time: formed in registers, mapped, and summed (`tile_norm`) or multiplied with another input (`tile_apply`). The fused tile
is this project's own. Where a or g holds inf, its sample may give NaN for inf.

Here positions come before features, as torch lays out a linear layer's rows:

    a [N, T, D]   inputs of N samples            weight [O, D]   shared by them
    g [N, T, O]   gradients at the outputs       x [N, T', D]    other inputs

Work, in multiply-adds: `N T D O` for the norm, `N (T + T') D O` for the effect. **With T = 1 M is an outer product** and
every rule factors: |g_o a_d|^q = |g_o|^q |a_d|^q, and Adaptive's sums are `(G²)ᵀ W² (A²)` and `G ⊙ (W² (A ⊙ x'))`, two
batched matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor, library

from .. import _native
from .elementwise import check_rule, contribution, direction, fold, native_map, working_dtype


def reference_norm(a: Tensor, g: Tensor, weight: Tensor, rule: str, q: float, squared: Tensor | None = None) -> Tensor:
    """`Σ φ(G Aᵀ, W)` of each sample; see `tile_norm`. M is stored: N·O·D numbers."""
    _check(a, g, weight, rule, q, squared)
    dtype = working_dtype(a, g, weight)
    m = g.to(dtype).mT @ a.to(dtype)
    return contribution(m, weight.to(dtype), rule, q).flatten(1).sum(1).to(working_dtype(g))


def reference_apply(
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
    """`s · X' δ(G Aᵀ, W)ᵀ` of each sample; see `tile_apply`. M is stored: N·O·D numbers."""
    _check(a, g, weight, rule, q, squared, x, scales)
    dtype = working_dtype(a, g, weight, x, scales)
    d = direction(g.to(dtype).mT @ a.to(dtype), weight.to(dtype), rule, q)
    out = scales.to(dtype)[:, None, None] * (x.to(dtype) @ d.mT)
    return (out + x.to(dtype) @ weight.to(dtype).mT if whole else out).to(g.dtype)


@library.custom_op("saal_fast::tile_norm", mutates_args=())
def tile_norm(a: Tensor, g: Tensor, weight: Tensor, rule: str, q: float, squared: Tensor | None = None) -> Tensor:
    """Each sample's `Σ φ(M, W)` over its weight gradient M = G Aᵀ.

    Args:
        a: the layer's inputs [N, T, D].
        g: gradients at its outputs [N, T, O].
        weight: W [O, D].
        rule: "l2", "lp" or "adaptive" (`elementwise.py`).
        q: the exponent of "lp"; others ignore it.
        squared: W², where the caller has it already: used by "adaptive" for T = 1.

    Returns:
        [N], of g's type, float32 at least.

    Raises:
        ValueError: shapes don't fit each other, or rule or q is none of the above.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference_norm(a, g, weight, rule, q, squared)


@library.custom_op("saal_fast::tile_apply", mutates_args=())
def tile_apply(
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
    """What each sample's step `s · δ(M, W)`, M = G Aᵀ, adds to the layer's output at another input.

    Args:
        a: the layer's inputs [N, T, D].
        g: gradients at its outputs [N, T, O].
        x: other inputs [N, T', D].
        weight: W [O, D].
        scales: s [N].
        rule: "l2", "lp" or "adaptive" (`elementwise.py`).
        q: the exponent of "lp"; others ignore it.
        squared: W², where the caller has it already: used by "adaptive" for T = 1.
        whole: add what W itself makes of x: the output after the step, without a bias.

    Returns:
        `s · X' δ(M, W)ᵀ`, plus `X' Wᵀ` where whole, [N, T', O], of g's type.

    Raises:
        ValueError: shapes don't fit each other, or rule or q is none of the above.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference_apply(a, g, x, weight, scales, rule, q, squared, whole)


def outer_norm(a: Tensor, g: Tensor, weight: Tensor, rule: str, q: float, squared: Tensor | None = None) -> Tensor:
    """`tile_norm` for T = 1, in closed form, on any device; a [N, D], g [N, O], all of one type."""
    if rule == "adaptive":
        w2 = weight.square() if squared is None else squared.to(weight.dtype)
        return (g.square() * (a.square() @ w2.mT)).sum(1)
    power = 2.0 if rule == "l2" else q
    return g.abs().pow(power).sum(1) * a.abs().pow(power).sum(1)


def outer_apply(
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
    """`tile_apply` for T = 1, in closed form, on any device; a [N, D], g [N, O], x [N, T', D], all of one type."""
    if rule == "adaptive":
        w2 = weight.square() if squared is None else squared.to(weight.dtype)
        along, across = (a.unsqueeze(1) * x) @ w2.mT, scales[:, None] * g
    else:
        along = x @ direction(a, weight, rule, q).unsqueeze(2)  # [N, T', 1]
        across = scales[:, None] * direction(g, weight, rule, q)
    return torch.addcmul(x @ weight.mT, along, across.unsqueeze(1)) if whole else along * across.unsqueeze(1)


@tile_norm.register_kernel("cpu")
def _norm_cpu(a: Tensor, g: Tensor, weight: Tensor, rule: str, q: float, squared: Tensor | None = None) -> Tensor:
    _check(a, g, weight, rule, q, squared)
    dtype = working_dtype(a, g, weight)
    a, g, weight = (t.detach().to(dtype) for t in (a, g, weight))
    out = torch.zeros(a.shape[0], dtype=dtype)
    if 0 in a.shape or 0 in g.shape:
        pass
    elif a.shape[1] == 1:
        out = outer_norm(a[:, 0], g[:, 0], weight, rule, q, squared)
    else:
        layer = weight.contiguous().numpy(), *_LINEAR
        out = torch.from_numpy(
            _native.core().tile_norm(_images(a), _images(g), *layer, native_map(rule, q), q, None, torch.get_num_threads())
        )
    return out.to(working_dtype(g))


@tile_apply.register_kernel("cpu")
def _apply_cpu(
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
    _check(a, g, weight, rule, q, squared, x, scales)
    like = g.dtype
    dtype = working_dtype(a, g, weight, x, scales)
    a, g, x, weight, scales = (t.detach().to(dtype) for t in (a, g, x, weight, scales))
    if 0 in (*a.shape, *g.shape, *x.shape):
        return g.new_zeros(x.shape[0], x.shape[1], g.shape[2], dtype=like)
    if a.shape[1] == 1:
        return outer_apply(a[:, 0], g[:, 0], x, weight, scales, rule, q, squared, whole).to(like)
    out = g.new_empty(x.shape[0], x.shape[1], g.shape[2])
    _native.core().tile_apply(
        _images(a), _images(g), _images(x), weight.contiguous().numpy(), scales.contiguous().numpy(), _images(out),
        *_LINEAR, native_map(rule, q), q, whole, torch.get_num_threads(),
    )  # fmt: skip
    return out.to(like)


@tile_norm.register_fake
def _norm_fake(a: Tensor, g: Tensor, weight: Tensor, rule: str, q: float, squared: Tensor | None = None) -> Tensor:
    return a.new_empty(a.shape[0], dtype=working_dtype(g))


@tile_apply.register_fake
def _apply_fake(
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
    return g.new_empty(x.shape[0], x.shape[1], g.shape[2])


@tile_norm.register_vmap
def _norm_vmap(
    info: object,
    in_dims: tuple[int | None, ...],
    a: Tensor,
    g: Tensor,
    weight: Tensor,
    rule: str,
    q: float,
    squared: Tensor | None = None,
) -> tuple[Tensor, int]:
    def norm(a: Tensor, g: Tensor, weight: Tensor, squared: Tensor | None) -> Tensor:
        norms: Tensor = tile_norm(a, g, weight, rule, q, squared)
        return norms

    dims = (*in_dims[:3], in_dims[5] if len(in_dims) > 5 else None)
    return fold(info, dims, norm, (a, g, weight, squared), (False, False, True, True))


@tile_apply.register_vmap
def _apply_vmap(
    info: object,
    in_dims: tuple[int | None, ...],
    a: Tensor,
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    rule: str,
    q: float,
    squared: Tensor | None = None,
    whole: bool = False,
) -> tuple[Tensor, int]:
    def apply(a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scales: Tensor, squared: Tensor | None) -> Tensor:
        out: Tensor = tile_apply(a, g, x, weight, scales, rule, q, squared, whole)
        return out

    dims = (*in_dims[:5], in_dims[7] if len(in_dims) > 7 else None)
    return fold(info, dims, apply, (a, g, x, weight, scales, squared), (False, False, False, True, False, True))


_LINEAR = ((1, 1), (1, 1), (0, 0), (1, 1), 1)  # as a convolution: kernel, stride, zeros before, dilation, groups


def _images(rows: Tensor) -> object:
    """Rows [N, T, D] as images of D channels, one row and T columns; a NumPy view."""
    return rows.mT.unsqueeze(2).numpy()


def _check(
    a: Tensor,
    g: Tensor,
    weight: Tensor,
    rule: str,
    q: float,
    squared: Tensor | None,
    x: Tensor | None = None,
    scales: Tensor | None = None,
) -> None:
    check_rule(rule, q)
    n, t, d = a.shape if a.ndim == 3 else (-1, -1, -1)
    o = g.shape[-1] if g.ndim == 3 else -1
    fits = g.shape == (n, t, o) and weight.shape == (o, d) and (squared is None or squared.shape == weight.shape)
    if x is not None and scales is not None:
        fits = fits and x.ndim == 3 and x.shape[::2] == (n, d) and scales.shape == (n,)
    if not fits:
        more = "" if x is None or scales is None else f", x {tuple(x.shape)}, scales {tuple(scales.shape)}"
        raise ValueError(
            "expected a [N, T, D], g [N, T, O], weight (and squared) [O, D], x [N, T', D], scales [N]; "
            f"got a {tuple(a.shape)}, g {tuple(g.shape)}, weight {tuple(weight.shape)}{more}"
        )
