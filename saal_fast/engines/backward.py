"""Gradients that torch's own kernels read rightly.

torch's backward kernel of batch norm (and of instance norm, which goes through it) reads a gradient of a batch of one by the
wrong strides where channels come last in the gradient's memory, as after `flatten(2).transpose(1, 2)`. Finite differences
show it for every floating-point type, in eval and in training mode; no other layer's kernel was found to do so
(`tests/engines/test_finite_differences.py`). Under `vmap` it happens too, which folds the samples into the channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction


def gradients_in_order(root: Tensor) -> Tensor:
    """Sees to it that the backward pass from `root` hands batch norms contiguous gradients; gives `root` itself."""
    for node in nodes_behind(root):
        if "BatchNorm" in node.name():
            node.register_prehook(_contiguous)
    return root


def nodes_behind(root: Tensor) -> set[Any]:
    """The nodes of autograd's graph that a tensor comes from."""
    return behind([root.grad_fn])


def behind(nodes: Iterable[Any]) -> set[Any]:
    """These nodes of autograd's graph, and those that they come from."""
    stack, seen = list(nodes), set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [following for following, _ in node.next_functions]
    return seen


def has_own_code(nodes: Iterable[Any]) -> bool:
    """Whether any of these nodes is a `torch.autograd.Function` of Python."""
    return any(isinstance(node, BackwardCFunction) for node in nodes)


def _contiguous(grads: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(g.contiguous() if isinstance(g, Tensor) else g for g in grads)
