"""Functions that compare tensors and give a Python bool: one number is asked for, not all that are compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..layers import register_decomposition


@register_decomposition(Tensor.__contains__)
def contains(x: Tensor, element: Any) -> Any:
    """`element in x`."""
    return bool(torch.eq(x, element).any()) if isinstance(element, Tensor | int | float | complex) else NotImplemented


@register_decomposition(torch.equal, Tensor.equal)
def equal(input: Tensor, other: Tensor) -> Any:
    """`torch.equal`."""
    return NotImplemented if input.dtype != other.dtype else input.shape == other.shape and bool((input == other).all())


@register_decomposition(torch.allclose, Tensor.allclose)
def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """`torch.allclose`."""
    if input.dtype != other.dtype:
        return NotImplemented
    # `isclose`, which `vmap` runs sample by sample
    near = (input == other) | (((input - other).abs() <= atol + rtol * other.abs()) & input.isfinite() & other.isfinite())
    if equal_nan:
        near = near | input.isnan() & other.isnan()
    return bool(near.all())
