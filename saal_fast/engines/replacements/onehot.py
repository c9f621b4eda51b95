"""`F.one_hot`, which asks for values to check them, and under `vmap` does not check: `scatter` checks them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers import register_decomposition


@register_decomposition(F.one_hot)
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """`F.one_hot`; for as many classes as the values need, these are asked for."""
    if num_classes == -1:
        num_classes = int(tensor.max()) + 1
    zeros = torch.zeros((*tensor.shape, num_classes), dtype=tensor.dtype, device=tensor.device)
    return zeros.scatter(-1, tensor[..., None], 1)
