"""What surrounds a call: settings that would change a model's numbers, and torch's own stacks, which it leaves alone."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.utils import parametrize

from .._utils.failures import struck_by


@contextmanager
def own_precision(device: torch.device) -> Iterator[None]:
    """Within it, a model runs as it is, whatever the caller has switched on around it.

    That is autocast, on the CPU and on the device, the cache of parametrized weights
    (`torch.nn.utils.parametrize.cached`), which would outlive a change of the weights, and the default device meta, on which
    a model's or a DataLoader's new tensors would have no values.
    """
    with ExitStack() as stack:
        for kind in sorted({"cpu", device.type}):
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if parametrize._cache_enabled:
            stack.enter_context(_without_cache())
        if device.type != "meta":
            stack.enter_context(with_values())
        yield


@contextmanager
def with_values() -> Iterator[None]:
    """Within it, tensors that are made without a device have values, also where the default device is meta."""
    with torch.device("cpu") if torch.empty(0).is_meta else nullcontext():
        yield


@contextmanager
def torch_stacks() -> Iterator[None]:
    """Puts back torch's stacks of modes and transforms on leaving, and whether gradients are recorded.

    torch's context managers do so themselves, unless a signal's error strikes between their lines.
    """
    stacks = [_Stack(*access) for access in _STACKS]
    depth, grad = _functorch.get_dynamic_layer_stack_depth(), torch.is_grad_enabled()

    def restore() -> None:
        while _functorch.get_dynamic_layer_stack_depth() > depth:
            _functorch.pop_dynamic_layer_stack()
        for stack in stacks:
            stack.restore()
        torch._C._set_grad_enabled(grad)

    try:
        yield
    except BaseException as error:
        if struck_by(error) is not None:
            _close_generators(error)
        raise
    finally:
        try:
            restore()
        except BaseException:  # a further signal's: the rest is done first
            restore()
            raise


def _close_generators(error: BaseException) -> None:
    """Ends context managers that a signal's error has cut off between their lines, which would else end at any later time.

    They are generators that wait in the locals of the frames that the error has come through.
    """
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            waiting += [one.__cause__, one.__context__]


_functorch: Any = torch._C._functorch


class _Stack:
    """One of torch's stacks of modes."""

    def __init__(
        self, length: Callable[[], int], at: Callable[[int], Any], pop: Callable[[], Any], push: Callable[[Any], Any]
    ) -> None:
        self.length, self.at, self.pop, self.push = length, at, pop, push
        self.modes = self._now()

    def restore(self) -> None:
        now = self._now()
        same = 0
        while same < min(len(now), len(self.modes)) and now[same] is self.modes[same]:
            same += 1
        for _ in now[same:]:
            self.pop()
        for mode in self.modes[same:]:
            self.push(mode)

    def _now(self) -> list[Any]:
        return [self.at(i) for i in range(self.length())]


_STACKS: Any = (
    (
        torch._C._len_torch_function_stack,
        torch._C._get_function_stack_at,
        torch._C._pop_torch_function_stack,
        torch._C._push_on_torch_function_stack,
    ),
    (
        torch._C._len_torch_dispatch_stack,
        torch._C._get_dispatch_stack_at,
        lambda: torch._C._pop_torch_dispatch_stack(None),
        torch._C._push_on_torch_dispatch_stack,
    ),
)


@contextmanager
def _without_cache() -> Iterator[None]:
    entered = parametrize._cache_enabled
    parametrize._cache_enabled = 0
    try:
        yield
    finally:
        parametrize._cache_enabled = entered
