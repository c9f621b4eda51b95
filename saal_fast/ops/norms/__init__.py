"""Layer norm with a weight and a bias of each sample's own, in one pass over the activations each way.

Under `vmap` torch's own kernel knows only weights that samples share; weight, bias and their gradients would each be a pass.
"""

from __future__ import annotations

from torch import Tensor, library

from ..common.registration import register
from . import cpu, reference

Three = tuple[Tensor, Tensor, Tensor]


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


@layer_norm.register_fake
def _layer_norm_fake(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Three:
    return x.new_empty(x.shape), x.new_empty(x.shape[:2]), x.new_empty(x.shape[:2])


@layer_norm_back.register_fake
def _layer_norm_back_fake(x: Tensor, g: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor) -> Three:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape)


register(layer_norm, reference.layer_norm, cpu=cpu.layer_norm, shared=(False,) * 3)
register(layer_norm_back, reference.layer_norm_back, cpu=cpu.layer_norm_back, shared=(False,) * 5)
