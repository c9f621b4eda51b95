"""Normalisation layers with a scale and a shift of each sample's own, in one pass over the activations each way.

Under `vmap` batch norm's and layer norm's own kernels know only scales that samples share; scale, shift and their gradients
would each be a pass. With `y = s ⊙ x + b`, s and b a sample's own, the way back is

    gx = s ⊙ g        gs = Σ g ⊙ x        gb = Σ g

summed over all but the channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, library

from ..common.registration import register
from . import cpu, reference

Three = tuple[Tensor, Tensor, Tensor]


@library.custom_op("saal_fast::scale_shift_back", mutates_args=())
def scale_shift_back(x: Tensor, g: Tensor, scale: Tensor) -> Three:
    """The way back through `scale · x + shift`, with a scale for each sample and channel.

    Args:
        x: inputs [N, C, *S].
        g: gradients at the outputs, likewise.
        scale: [N, C].

    Returns:
        gradients by x [N, C, *S], laid out as g or as x, by the scale and by the shift [N, C].

    Raises:
        ValueError: shapes don't fit each other.
    """
    return reference.scale_shift_back(x, g, scale)


@library.custom_op("saal_fast::layer_norm", mutates_args=())
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Three:
    """Layer norm of rows with a weight and a bias of each sample's own.

    Args:
        x: [N, T, D], normalised along D.
        weight: [N, D].
        bias: [N, D].
        eps: added to the variance.

    Returns:
        [N, T, D]; each row's mean and `1 / √(var + eps)` [N, T].

    Raises:
        ValueError: shapes don't fit each other.
    """
    return reference.layer_norm(x, weight, bias, eps)


@library.custom_op("saal_fast::layer_norm_back", mutates_args=())
def layer_norm_back(x: Tensor, g: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor) -> Three:
    """The way back through `layer_norm`.

    Args:
        x: inputs [N, T, D].
        g: gradients at the outputs [N, T, D].
        weight: [N, D].
        mean: as `layer_norm` gave it [N, T].
        rstd: likewise.

    Returns:
        gradients by x [N, T, D], by weight and by bias [N, D].

    Raises:
        ValueError: shapes don't fit each other.
    """
    return reference.layer_norm_back(x, g, weight, mean, rstd)


@scale_shift_back.register_fake
def _scale_shift_back_fake(x: Tensor, g: Tensor, scale: Tensor) -> Three:
    gx = torch.empty_like(x, memory_format=reference.memory_format(x, g))
    return gx, scale.new_empty(scale.shape), scale.new_empty(scale.shape)


@layer_norm.register_fake
def _layer_norm_fake(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Three:
    return x.new_empty(x.shape), x.new_empty(x.shape[:2]), x.new_empty(x.shape[:2])


@layer_norm_back.register_fake
def _layer_norm_back_fake(x: Tensor, g: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor) -> Three:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape)


register(scale_shift_back, reference.scale_shift_back, cpu=cpu.scale_shift_back, shared=(False,) * 3)
register(layer_norm, reference.layer_norm, cpu=cpu.layer_norm, shared=(False,) * 3)
register(layer_norm_back, reference.layer_norm_back, cpu=cpu.layer_norm_back, shared=(False,) * 5)
