"""Norms and steps of the parameters whose gradients autograd forms, all of them at once.

A model has many small ones: normalisation layers, early convolutions. One by one they cost two or three launches each. Here
a sample's gradients lie end to end in a row of [N, P], their weights in one [P], and each operation is one launch however
many parameters there are. `flatten_parameters` lays them so (a copy), `unflatten_parameters` gives each parameter's part of
a result (views).

A table of addresses would need no copy; but addresses change from chunk to chunk, so each call would send a table to the
device, and a CUDA graph could not record it. The copy is one read and one write of these gradients, which are small by the
plan's choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Size, Tensor, library

from ..common import trials
from ..common.elementwise import working_dtype
from ..common.registration import register
from . import reference


def flatten_parameters(tensors: Mapping[str, Tensor]) -> Tensor:
    """One sample's tensors end to end, [P]; under `vmap`, each sample's."""
    return torch.cat([t.reshape(-1) for t in tensors.values()])


def unflatten_parameters(flat: Tensor, shapes: Mapping[str, Size]) -> dict[str, Tensor]:
    """The inverse of `flatten_parameters`, as views; `flat` is [P], or under `vmap` each sample's."""
    parts = torch.split(flat, [math.prod(shape) for shape in shapes.values()])
    return {name: part.view(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}


@library.custom_op("saal_fast::flat_norm", mutates_args=())
def flat_norm(g: Tensor, weight: Tensor, rule: str, q: float) -> Tensor:
    """Each sample's `Σ φ(g, w)`.

    Args:
        g: gradients [N, P].
        weight: the weights they belong to [P].
        rule: see `common/elementwise.py`.
        q: likewise.

    Returns:
        [N], in the widest of the types, float32 at least.

    Raises:
        ValueError: shapes don't fit each other, or rule or q are none.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference.norm(g, weight, rule, q)


@library.custom_op("saal_fast::flat_step", mutates_args=())
def flat_step(g: Tensor, weight: Tensor, scales: Tensor, rule: str, q: float) -> Tensor:
    """Each sample's own weights, `w + s · δ(g, w)`.

    Args:
        g: gradients [N, P].
        weight: the weights they belong to [P].
        scales: s [N].
        rule: see `common/elementwise.py`.
        q: likewise.

    Returns:
        [N, P], of the weights' type.

    Raises:
        ValueError: shapes don't fit each other, or rule or q are none.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference.step(g, weight, scales, rule, q)


@flat_norm.register_fake
def _norm_fake(g: Tensor, weight: Tensor, rule: str, q: float) -> Tensor:
    return g.new_empty(g.shape[0], dtype=working_dtype(g, weight))


@flat_step.register_fake
def _step_fake(g: Tensor, weight: Tensor, scales: Tensor, rule: str, q: float) -> Tensor:
    return g.new_empty(g.shape, dtype=weight.dtype)


_TRITON = f"{__name__}.triton"
register(flat_norm, reference.norm, triton_module=_TRITON, shared=(False, True), trials=trials.flat_norms)
register(flat_step, reference.step, triton_module=_TRITON, shared=(False, True, False), trials=trials.flat_steps)
