"""Attention: the projections around it are linear layers, and `vmap` has no rule for the fused kernels in it."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from .base import register_decomposition, register_replacement


@register_replacement(F.scaled_dot_product_attention)
def scaled_dot_product_attention(*args: Any, **kwargs: Any) -> Tensor:
    """The same in plain operations: `vmap` would run the fused kernels sample by sample."""
    device = args[0].device.type if args else kwargs["query"].device.type
    if not torch.is_autocast_enabled(device):
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(*args, **kwargs)
    # Autocast would cast at each of its steps, but under vmap not on their way back.
    half = torch.get_autocast_dtype(device)
    args, kwargs = tree_map(lambda t: t.to(half) if _is_float(t) else t, (args, kwargs))
    with torch.autocast(device, enabled=False), sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(*args, **kwargs)


@register_replacement(torch._nested_tensor_from_mask_left_aligned)
def nested_tensor_from_mask_left_aligned(*args: Any) -> bool:
    """Whether `nn.TransformerEncoder` may take its fused path, which it leaves in a pass that is differentiated: no."""
    return False


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


_body = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda tensors: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


@register_decomposition(F.multi_head_attention_forward)
def multi_head_attention_forward(*args: Any, **kwargs: Any) -> Any:
    """The code torch runs itself, without handing itself over as a whole: its linear layers are seen one by one."""
    return _body(*args, **kwargs)
