"""The operations in C++ (`csrc/norm/`), for float32 and float64."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _native
from . import reference

Three = tuple[Tensor, Tensor, Tensor]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Three:
    """See the operator."""
    if not _serves(x, weight, bias):
        return reference.layer_norm(x, weight, bias, eps)
    reference.check_rows(x, x, weight, bias)
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    y, mean, rstd = torch.empty_like(x), x.new_empty(x.shape[:2]), x.new_empty(x.shape[:2])
    given, made = [t.numpy() for t in (x, weight, bias)], [t.numpy() for t in (y, mean, rstd)]
    _native.core().layer_norm(*given, eps, *made, torch.get_num_threads())
    return y, mean, rstd


def layer_norm_back(x: Tensor, g: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor) -> Three:
    """See the operator."""
    if not _serves(x, g, weight, mean, rstd):
        return reference.layer_norm_back(x, g, weight, mean, rstd)
    reference.check_rows(x, g, weight)
    given = [t.contiguous() for t in (x, g, weight, mean, rstd)]
    gx, sums = torch.empty_like(given[0]), weight.new_empty(len(weight), 2, weight.shape[1])
    _native.core().layer_norm_back(*(t.numpy() for t in (*given, gx, sums)), torch.get_num_threads())
    return gx, sums[:, 0].clone(), sums[:, 1].clone()  # an operator's results share no memory


def _serves(*tensors: Tensor) -> bool:
    return tensors[0].dtype in (torch.float32, torch.float64) and all(
        t.dtype == tensors[0].dtype and t.numel() > 0 for t in tensors
    )
