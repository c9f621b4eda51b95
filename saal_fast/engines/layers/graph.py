"""What a model's code says to the graph inside transforms, which refuse some of it.

Tensors of a pass are those of torch's transforms. A tensor that is to require a gradient, or is to be detached in place, is
exchanged for one of the same values; where a pass records no graph, hooks on gradients have nothing to meet.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import (
    TransformType,
    _unwrap_for_grad,
    _wrap_for_grad,
    get_inplace_requires_grad_allowed,
    peek_interpreter_stack,
)
from torch._functorch.eager_transforms import _create_differentiable
from torch.autograd import _make_grads
from torch.autograd.graph import _engine_run_backward
from torch.utils import swap_tensors
from torch.utils.hooks import RemovableHandle

from .base import register_decomposition


@register_decomposition(Tensor.requires_grad_)
def requires_grad_(x: Tensor, requires_grad: bool = True) -> Any:
    """The tensor, which records from here on what is done with it, where the pass records."""
    if not _transformed() or get_inplace_requires_grad_allowed():  # the request is that of a transform itself
        return NotImplemented
    if x.requires_grad or not requires_grad:
        return x if x.requires_grad == requires_grad else NotImplemented
    top = peek_interpreter_stack()
    if top.key() == TransformType.Grad:
        level = top.level()
        _become(x, _create_differentiable(_wrap_for_grad(_unwrap_for_grad(x, level), level), level))
    return x


@register_decomposition(Tensor.requires_grad.__set__)  # type: ignore[attr-defined] # an attribute of C
def set_requires_grad(x: Tensor, requires_grad: bool) -> Any:
    """As `requires_grad_`."""
    return NotImplemented if requires_grad_(x, requires_grad) is NotImplemented else None


@register_decomposition(Tensor.detach_)
def detach_(x: Tensor) -> Any:
    """The tensor, without a history."""
    if not _transformed():
        return NotImplemented
    _become(x, x.detach())
    return x


@register_decomposition(Tensor.register_hook)
def register_hook(x: Tensor, hook: Callable[[Tensor], Tensor | None]) -> Any:
    """A handle of nothing, where there will be no gradient."""
    return RemovableHandle(OrderedDict()) if _transformed() and not x.requires_grad else NotImplemented


@register_decomposition(Tensor.retain_grad)
def retain_grad(x: Tensor) -> Any:
    """Nothing: nobody can read the gradient after the pass."""
    return None if _transformed() else NotImplemented


@register_decomposition(torch.autograd.grad)
def grad(
    outputs: tuple[Tensor, ...],
    inputs: tuple[Tensor, ...],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool = False,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> Any:
    """The same, so that code in the backward pass (hooks, functions) is intercepted too: torch would suspend that."""
    if is_grads_batched or materialize_grads or not _transformed():
        return NotImplemented
    given = (None,) * len(outputs) if grad_outputs is None else grad_outputs
    slopes = _make_grads(outputs, (given,) if isinstance(given, Tensor) else tuple(given), is_grads_batched=False)
    retain = create_graph if retain_graph is None else retain_graph
    return _engine_run_backward(outputs, slopes, retain, create_graph, inputs, allow_unused, accumulate_grad=False)


def _become(x: Tensor, other: Tensor) -> None:
    swap_tensors(x, other)  # type: ignore[no-untyped-call] # torch's own


def _transformed() -> bool:
    return torch._C._are_functorch_transforms_active()
