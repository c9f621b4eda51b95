"""Activation checkpointing, which scoring does without: checkpointed functions are called themselves.

`torch.utils.checkpoint` saves memory by running a function anew in the backward pass. `vmap` takes neither of its kinds; the
reentrant one refuses `torch.autograd.grad`, and what runs anew would meet the model's own parameters, no longer those that
stand in for them. The function by itself has the same values and the same gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch.utils.checkpoint as torchs

from .switch import Switch

_GENERATORS = {"_checkpoint_without_reentrant_generator": 2, "_checkpoint_without_reentrant_generator_impl": None}
"""What runs around a function that is not reentrant, by torch's releases, and the position of `context_fn` among the arguments."""


def without_checkpoints() -> AbstractContextManager[None]:
    """Within it, `torch.utils.checkpoint` calls the functions it is given plainly, in this thread."""
    return _switch.within()


def _turn_on() -> Callable[[], None]:
    originals = {name: getattr(torchs, name) for name in _GENERATORS if hasattr(torchs, name)}
    reentrant = torchs.CheckpointFunction.apply

    def apply(run: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return run(*args) if _switch.here() else reentrant(run, preserve_rng_state, *args)

    def off() -> None:
        for name, original in originals.items():
            setattr(torchs, name, original)
        if "apply" in vars(torchs.CheckpointFunction):
            del torchs.CheckpointFunction.apply

    for name, original in originals.items():
        setattr(torchs, name, _plain_here(original, _GENERATORS[name]))
    torchs.CheckpointFunction.apply = staticmethod(apply)
    return off


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
