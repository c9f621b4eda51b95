"""What code says to the graph of a tensor, where a pass records none for it, or only as one of its transforms.

A pass differentiates by the parameters that it perturbs, and tensors need no gradient of their own for that: a request for
one (the hook that Hugging Face's `enable_input_require_grads` puts on embeddings) has nothing to do. torch's transforms would
refuse it. In passes without gradients, hooks on gradients have nothing to meet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch._C._functorch import get_inplace_requires_grad_allowed
from torch.utils.hooks import RemovableHandle

from .base import register_decomposition


@register_decomposition(Tensor.requires_grad_)
def requires_grad_(x: Tensor, requires_grad: bool = True) -> Any:
    """The tensor itself, unless a gradient is to be given up."""
    return x if _needless(x, requires_grad) else NotImplemented


@register_decomposition(Tensor.requires_grad.__set__)  # type: ignore[attr-defined] # an attribute of C
def set_requires_grad(x: Tensor, requires_grad: bool) -> Any:
    """Nothing, unless a gradient is to be given up."""
    return None if _needless(x, requires_grad) else NotImplemented


def _needless(x: Tensor, requires_grad: bool) -> bool:
    if get_inplace_requires_grad_allowed():  # the request is that of a transform itself
        return False
    return requires_grad or not x.requires_grad


@register_decomposition(Tensor.register_hook)
def register_hook(x: Tensor, hook: Callable[[Tensor], Tensor | None]) -> Any:
    """A handle of nothing, where there will be no gradient."""
    return NotImplemented if x.requires_grad else RemovableHandle({})


@register_decomposition(Tensor.retain_grad)
def retain_grad(x: Tensor) -> Any:
    """Nothing, where there will be no gradient."""
    return NotImplemented if x.requires_grad else None
