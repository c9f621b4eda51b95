"""Hooks on a model's modules that measure, and compute nothing of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import nn

from .uninterrupted import uninterrupted

_KINDS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def without_measuring_hooks(model: nn.Module) -> AbstractContextManager[None]:
    """Within it, modules are without the hooks whose owner has a switch for them, `hooks_enabled`.

    These are opacus', which collect gradients of samples on the parameters, and fail in eval mode.
    """
    full = [
        (hooks, dict(hooks))
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)
        for kind in _KINDS
        if any(map(_measures, (hooks := vars(module).get(kind, {})).values()))
    ]

    def enter() -> None:
        for hooks, _ in full:
            for key in [key for key, hook in hooks.items() if _measures(hook)]:
                del hooks[key]

    def leave() -> None:
        for hooks, before in full:
            hooks.clear()
            hooks.update(before)

    return uninterrupted(enter, leave)


def _measures(hook: Callable[..., Any]) -> bool:
    while isinstance(hook, partial):
        hook = hook.func
    return hasattr(getattr(hook, "__self__", None), "hooks_enabled")
