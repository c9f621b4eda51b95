"""What saves memory around a model's code, and scoring does without: checkpointed functions are called themselves.

`torch.utils.checkpoint` runs a function anew in the backward pass. `vmap` takes neither of its kinds; the reentrant one
refuses `torch.autograd.grad`, and what runs anew would meet the model's own parameters, no longer those that stand in for
them. The function by itself has the same values and the same gradients. So has code within `save_on_cpu`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch.utils.checkpoint as torchs
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from .switch import Switch

_GENERATORS = {"_checkpoint_without_reentrant_generator": 2, "_checkpoint_without_reentrant_generator_impl": None}
"""What runs around a function, where not reentrant, by torch's releases; and where `context_fn` is among its arguments."""


def without_checkpoints() -> AbstractContextManager[None]:
    """Within it, what is checkpointed or saved on the CPU runs plainly, in this thread."""
    return _switch.within()


def _turn_on() -> Callable[[], None]:
    changes = _changes()
    before = {(owner, name): vars(owner).get(name) for owner, name in changes}

    def off() -> None:
        for (owner, name), value in before.items():
            if value is not None:
                setattr(owner, name, value)
            elif name in vars(owner):
                delattr(owner, name)

    for (owner, name), value in changes.items():
        setattr(owner, name, value)
    return off


def _changes() -> dict[tuple[Any, str], Any]:
    """The attributes that are changed, which do in other threads what they did."""
    reentrant = torchs.CheckpointFunction.apply

    def apply(run: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return run(*args) if _switch.here() else reentrant(run, preserve_rng_state, *args)

    def enter(self: Any) -> None:
        if not _switch.here():
            saved_tensors_hooks.__enter__(self)

    def leave(self: Any, *error: Any) -> None:
        if not _switch.here():
            saved_tensors_hooks.__exit__(self, *error)

    changes: dict[tuple[Any, str], Any] = {
        (torchs, name): _plain_here(getattr(torchs, name), position)
        for name, position in _GENERATORS.items()
        if hasattr(torchs, name)
    }
    changes[torchs.CheckpointFunction, "apply"] = staticmethod(apply)
    return changes | {(save_on_cpu, "__enter__"): enter, (save_on_cpu, "__exit__"): leave}


def _plain_here(original: Callable[..., Iterator[None]], position: int | None) -> Callable[..., Iterator[None]]:
    @wraps(original)
    def around(*args: Any, **kwargs: Any) -> Iterator[None]:
        if not _switch.here():
            return original(*args, **kwargs)
        made = kwargs.get("context_fn") if position is None else args[position]
        return _within(torchs.noop_context_fn if made is None else made)

    return around


def _within(contexts: Callable[[], Any]) -> Iterator[None]:
    """Enters the context that a function is to run in, unless it only keeps results for running anew."""
    context, _ = contexts()
    with nullcontext() if isinstance(context, torchs._CachingTorchDispatchMode) else context:
        yield


_switch = Switch(_turn_on)
