"""`out[t] = W[index[t]]`: A is a one-hot matrix nobody writes down, and its Gram matrix tells which tokens are equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import LayerCall, register_decomposition, register_layer, register_replacement


@dataclass(frozen=True)
class Embedding:
    """Geometry of an embedding; `padding_idx` gets no gradient."""

    rows_of_weight: int
    padding_idx: int | None

    def unfold_input(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        onehot = F.one_hot(x.reshape(1, -1), self.rows_of_weight).mT
        if self.padding_idx is not None:
            onehot = onehot * (x.reshape(1, 1, -1) != self.padding_idx)
        return onehot

    def gram(self, a: Tensor, x: Tensor) -> Tensor:
        """See `Layer`."""
        a, x = a.reshape(1, -1, 1), x.reshape(1, 1, -1)
        same = a == x
        return same if self.padding_idx is None else same & (a != self.padding_idx)

    def flatten_grad(self, g: Tensor) -> Tensor:
        """See `Layer`."""
        return g.reshape(1, -1, g.shape[-1]).mT

    def unflatten_output(self, y: Tensor, like: Tensor) -> Tensor:
        """See `Layer`."""
        return y.mT.reshape(like.shape)

    def gram_flops(self, x: Tensor, positions: int) -> float:
        """See `Layer`."""
        return float(positions**2)

    def matrix(self, weight: Tensor) -> Tensor:
        """See `Layer`."""
        return weight


@register_replacement(F.embedding)
def dense(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """`F.embedding` whose gradient is no sparse tensor, which `vmap` cannot run."""
    return F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq)


@register_layer(F.embedding)
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> LayerCall | None:
    """`F.embedding`; one that renormalises its weight or scales its gradient by frequency is left to autograd."""
    if max_norm is not None or scale_grad_by_freq:
        return None
    if padding_idx is not None and padding_idx < 0:
        padding_idx += weight.shape[0]
    return LayerCall(Embedding(weight.shape[0], padding_idx), input, weight, None)


@register_decomposition(F.embedding_bag)
def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """`F.embedding_bag` of bags of one length [B, L], as an embedding and what is made of its rows."""
    if input.ndim != 2 or offsets is not None or max_norm is not None or scale_grad_by_freq or weight.ndim != 2:
        return NotImplemented
    rows = F.embedding(input, weight)
    if padding_idx is None:
        counted = torch.ones_like(input, dtype=torch.bool)
    else:
        counted = input != (padding_idx + len(weight) if padding_idx < 0 else padding_idx)
    if mode == "max":
        if input.shape[1] == 0:
            return rows.sum(1)
        lowest = rows.masked_fill(~counted[..., None], -torch.inf).amax(1)
        return torch.where(counted.any(1, keepdim=True), lowest, 0)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[..., None]
    total = (rows * counted[..., None]).sum(1)
    return total / counted.sum(1, keepdim=True).clamp_min(1) if mode == "mean" else total


@register_replacement(F.embedding_bag)
def dense_bag(*args: Any, **kwargs: Any) -> Tensor:
    """`F.embedding_bag` whose gradient is no sparse tensor."""
    if len(args) > SPARSE:
        args = (*args[:SPARSE], False, *args[SPARSE + 1 :])
    elif kwargs.get("sparse"):
        kwargs["sparse"] = False
    return F.embedding_bag(*args, **kwargs)


SPARSE = 7
"""The place of `sparse` among the arguments of `F.embedding_bag`."""
