"""What surrounds a call and would change a model's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.utils import parametrize


@contextmanager
def own_precision(device: torch.device) -> Iterator[None]:
    """Within it, a model runs as it is, whatever the caller has switched on around it.

    That is autocast, on the CPU and on the device, and the cache of parametrized weights
    (`torch.nn.utils.parametrize.cached`), which would outlive a change of the weights.
    """
    with ExitStack() as stack:
        for kind in sorted({"cpu", device.type}):
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if parametrize._cache_enabled:
            stack.enter_context(_without_cache())
        yield


@contextmanager
def _without_cache() -> Iterator[None]:
    entered = parametrize._cache_enabled
    parametrize._cache_enabled = 0
    try:
        yield
    finally:
        parametrize._cache_enabled = entered
