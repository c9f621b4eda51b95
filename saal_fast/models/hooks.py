"""Hooks on a model's modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import nn

from .uninterrupted import uninterrupted

_KINDS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def without_measuring_hooks(model: nn.Module) -> AbstractContextManager[None]:
    """Within it, hooks rest whose owner has a switch for that, `hooks_enabled`.

    opacus' hooks collect per-sample gradients on the parameters, and fail in eval mode.
    """
    owners = {id(owner): owner for hook in hooks_of(model) if (owner := _owner(hook)) is not None}

    def enter() -> None:
        for owner in owners.values():
            owner.hooks_enabled = False

    def leave() -> None:
        for owner in owners.values():
            owner.hooks_enabled = True

    return uninterrupted(enter, leave)


def hooks_of(model: nn.Module) -> Iterator[Any]:
    """The hooks of all modules."""
    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            for kind in _KINDS:
                yield from vars(module).get(kind, {}).values()


def _owner(hook: Any) -> Any:
    """The object a hook is a method of, where it has a switch that is on."""
    while isinstance(hook, partial):
        hook = hook.func
    owner = getattr(hook, "__self__", None)
    return owner if getattr(owner, "hooks_enabled", None) is True else None
