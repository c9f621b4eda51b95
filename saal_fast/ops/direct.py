"""Norms and steps of the parameters that are differentiated directly, all of them at once.

A model has many small ones: normalisation layers, early convolutions. One by one they cost two or three launches each. Here
a sample's gradients lie end to end in a row of [N, P], their weights in one [P], and each operation is one launch however
many parameters there are. `pack` lays the gradients so (a copy), `unpack` gives each parameter's part of a result (views).

Why not a table of addresses, which would need no copy: addresses change from chunk to chunk, so each call would send a table
to the device, and a CUDA graph could not record it. The copy is one read and one write of the directly differentiated
gradients, which are small by the plan's choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Size, Tensor, library

from . import triton as twins
from .elementwise import check_rule, contribution, direction, fold, native_map, working_dtype


def pack(tensors: Mapping[str, Tensor]) -> Tensor:
    """One sample's tensors end to end, [P]; under `vmap`, each sample's."""
    return torch.cat([t.reshape(-1) for t in tensors.values()])


def unpack(packed: Tensor, shapes: Mapping[str, Size]) -> dict[str, Tensor]:
    """The inverse of `pack`, as views; `packed` is [P], or under `vmap` each sample's."""
    parts = torch.split(packed, [math.prod(shape) for shape in shapes.values()])
    return {name: part.view(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}


def reference_norm(g: Tensor, weight: Tensor, rule: str, q: float) -> Tensor:
    """See `direct_norm`."""
    _check(g, weight, rule, q)
    dtype = working_dtype(g, weight)
    return contribution(g.to(dtype), weight.to(dtype), rule, q).sum(1)


def reference_move(g: Tensor, weight: Tensor, scales: Tensor, rule: str, q: float) -> Tensor:
    """See `direct_move`."""
    _check(g, weight, rule, q, scales)
    dtype = working_dtype(g, weight, scales)
    w = weight.to(dtype)
    return (w + scales.to(dtype)[:, None] * direction(g.to(dtype), w, rule, q)).to(weight.dtype)


@library.custom_op("saal_fast::direct_norm", mutates_args=())
def direct_norm(g: Tensor, weight: Tensor, rule: str, q: float) -> Tensor:
    """Each sample's `Σ φ(g, w)`.

    Args:
        g: gradients [N, P].
        weight: the weights they belong to [P].
        rule: "l2", "lp" or "adaptive" (`elementwise.py`).
        q: the exponent of "lp"; others ignore it.

    Returns:
        [N], in the widest of the types, float32 at least.

    Raises:
        ValueError: shapes don't fit each other, or rule or q is none of the above.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference_norm(g, weight, rule, q)


@library.custom_op("saal_fast::direct_move", mutates_args=())
def direct_move(g: Tensor, weight: Tensor, scales: Tensor, rule: str, q: float) -> Tensor:
    """Each sample's own weights, `w + s · δ(g, w)`.

    Args:
        g: gradients [N, P].
        weight: the weights they belong to [P].
        scales: s [N].
        rule: "l2", "lp" or "adaptive" (`elementwise.py`).
        q: the exponent of "lp"; others ignore it.

    Returns:
        [N, P], of the weights' type.

    Raises:
        ValueError: shapes don't fit each other, or rule or q is none of the above.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference_move(g, weight, scales, rule, q)


@direct_norm.register_kernel("cuda")
def _norm_cuda(g: Tensor, weight: Tensor, rule: str, q: float) -> Tensor:
    if not twins.usable(g, weight):
        return reference_norm(g, weight, rule, q)
    from .triton import direct as twin  # noqa: PLC0415  # triton may be missing

    _check(g, weight, rule, q)
    return twin.norm(g, weight, native_map(rule, q), q)


@direct_move.register_kernel("cuda")
def _move_cuda(g: Tensor, weight: Tensor, scales: Tensor, rule: str, q: float) -> Tensor:
    if not twins.usable(g, weight, scales):
        return reference_move(g, weight, scales, rule, q)
    from .triton import direct as twin  # noqa: PLC0415  # triton may be missing

    _check(g, weight, rule, q, scales)
    return twin.move(g, weight, scales, native_map(rule, q), q)


@direct_norm.register_fake
def _norm_fake(g: Tensor, weight: Tensor, rule: str, q: float) -> Tensor:
    return g.new_empty(g.shape[0], dtype=working_dtype(g, weight))


@direct_move.register_fake
def _move_fake(g: Tensor, weight: Tensor, scales: Tensor, rule: str, q: float) -> Tensor:
    return g.new_empty(g.shape, dtype=weight.dtype)


@direct_norm.register_vmap
def _norm_vmap(
    info: object, in_dims: tuple[int | None, ...], g: Tensor, weight: Tensor, rule: str, q: float
) -> tuple[Tensor, int]:
    return fold(info, in_dims[:2], direct_norm, (g, weight), (False, True), rule, q)


@direct_move.register_vmap
def _move_vmap(
    info: object, in_dims: tuple[int | None, ...], g: Tensor, weight: Tensor, scales: Tensor, rule: str, q: float
) -> tuple[Tensor, int]:
    return fold(info, in_dims[:3], direct_move, (g, weight, scales), (False, True, False), rule, q)


def _check(g: Tensor, weight: Tensor, rule: str, q: float, scales: Tensor | None = None) -> None:
    check_rule(rule, q)
    if g.ndim != 2 or weight.shape != g.shape[1:] or (scales is not None and scales.shape != g.shape[:1]):
        more = "" if scales is None else f", scales {list(scales.shape)}"
        raise ValueError(
            f"expected g [N, P], weight [P], scales [N]; got g {list(g.shape)}, weight {list(weight.shape)}{more}"
        )
