"""Functions of torch that give a view of their first argument, or where they cannot, a copy."""

from __future__ import annotations

import torch
from torch import Tensor

_PROPERTIES = ("T", "mT", "H", "mH")

_METHODS = (
    *("transpose", "permute", "t", "movedim", "moveaxis", "swapaxes", "swapdims", "adjoint"),
    *("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze", "contiguous"),
    *("narrow", "select", "chunk", "split", "split_with_sizes", "tensor_split", "hsplit", "vsplit", "dsplit", "unbind"),
    *("expand", "expand_as", "broadcast_to", "__getitem__", "__iter__"),
)

VIEWS = frozenset(
    [getattr(Tensor, name).__get__ for name in _PROPERTIES]
    + [getattr(Tensor, name) for name in _METHODS if hasattr(Tensor, name)]
    + [getattr(torch, name) for name in _METHODS if hasattr(torch, name)]
)
"""As a `TorchFunctionMode` meets them. Not those through which no gradient flows (`detach`)."""
