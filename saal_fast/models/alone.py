"""A model that is being scored runs in the thread that scores it, and in no other one meanwhile."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from .turns import turns
from .uninterrupted import uninterrupted

_KEY = -1
"""The hook's number; torch's own begin with 0."""


def alone(model: nn.Module) -> AbstractContextManager[None]:
    """Within it, a call of `model` in another thread than the one whose turn it is (`turns.py`) raises a RuntimeError.

    Modules hold other tensors than their weights meanwhile, so that the call would give wrong numbers, or fail within torch.
    Calls of its children by themselves are not seen.
    """
    hooks: Any = model._forward_pre_hooks  # an OrderedDict, annotated as a dict
    nested = _KEY in hooks  # a model whose forward pass scores itself

    def enter() -> None:
        hooks[_KEY] = _refuse_others
        hooks.move_to_end(_KEY, last=False)

    def leave() -> None:
        if not nested:
            hooks.pop(_KEY, None)

    return uninterrupted(enter, leave)


def _refuse_others(module: nn.Module, args: Any) -> None:
    if turns.is_elsewhere(module):
        raise RuntimeError(
            f"{type(module).__name__} is being scored in another thread, for which its modules hold other tensors than its "
            "weights; expected calls of it before or after. A copy made before (copy.deepcopy) can be called meanwhile"
        )
