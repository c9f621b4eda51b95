"""Random numbers: generators of a caller, and torch's, NumPy's and Python's global ones, which the caller gets back."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch

T = TypeVar("T")


def check_generator(generator: Any) -> None:
    """Raises TypeError unless `generator` is a `torch.Generator` or None."""
    if not (generator is None or isinstance(generator, torch.Generator)):
        hint = mend_seed(generator) or "; torch.Generator().manual_seed(number) makes one of a number"
        raise TypeError(f"expected generator to be a torch.Generator or None, got {type(generator).__name__}{hint}")


def mend_seed(seed: Any) -> str:
    """What to add to the message about a seed that is a generator of NumPy's or Python's; nothing for another thing."""
    draws = {
        np.random.RandomState: "randint(2**31)",
        np.random.Generator: "integers(2**31)",
        random.Random: "randrange(2**31)",
    }
    for kind, draw in draws.items():
        if isinstance(seed, kind):
            number = f"int(seed.{draw})"
            return f"; {number} draws a number of it, torch.Generator().manual_seed({number}) makes a generator of that"
    if seed is np.random or seed is random:
        return "; expected a seed of its own, as the global generators are never drawn from"
    return ""


def ensure_generator(generator: torch.Generator | None) -> torch.Generator:
    """The generator itself, or for None a new one with fresh entropy."""
    check_generator(generator)
    if generator is None:
        generator = torch.Generator("cpu")
        generator.seed()
    return generator


def draw_seed(generator: torch.Generator | None) -> int:
    """A seed in [0, 2⁶²), drawn from the generator."""
    generator = ensure_generator(generator)
    return int(torch.randint(2**62, (), dtype=torch.int64, generator=generator, device=generator.device))


@contextmanager
def drawing_from(generator: torch.Generator | None) -> Iterator[None]:
    """Seeds torch's global CPU generator from `generator` (by one draw), and restores it on leaving."""
    seed = draw_seed(generator)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators of torch (all devices), NumPy and Python, and restores them on leaving."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class GlobalGenerators:
    """The global generators of torch, NumPy and Python as they are now, to be put back once work is done.

    They belong to the process: what another thread draws meanwhile must not be given out again. While this thread is the
    only one of Python's, what has moved is put back. Beside other threads, a generator is put back only where it moved
    while the work that `watch` was shown ran, and now, while this thread rests, does not move.

    Args:
        devices: CUDA devices whose generators count too.
    """

    def __init__(self, devices: Iterable[torch.device] = ()) -> None:
        self.thread = threading.get_ident()
        self._all: list[tuple[Callable[[], Any], Callable[[Any], None]]] = [
            (random.getstate, random.setstate),
            (np.random.get_state, np.random.set_state),
            (torch.get_rng_state, torch.set_rng_state),
        ]
        for device in devices:
            self._all.append(
                (partial(torch.cuda.get_rng_state, device), partial(_set_cuda_state, device)),
            )
        self._before = self._states()
        self._watched = 0.0  # seconds
        self._drew: list[bool] | None = None  # which ones moved in `watch`; None where it was shown nothing
        _open.append(self)

    def watch(self, work: Callable[[], T], times: int = 1) -> T:
        """Does work that may draw, and remembers which generators it moved.

        Args:
            work: gives the same each time.
            times: how often to do it at most, beside other threads: what each of these moves is what the work draws.
        """
        if not self._beside_others():
            return work()
        moved, begun = [True] * len(self._all), time.monotonic()
        try:
            for _ in range(times):
                before = self._states()
                try:
                    result = work()
                finally:  # what fails has drawn as well
                    moved = [m and not _same(a, b) for m, a, b in zip(moved, before, self._states(), strict=True)]
                if not any(moved):
                    break
        finally:
            self._watched += time.monotonic() - begun
            self._drew = moved if self._drew is None else [a or b for a, b in zip(self._drew, moved, strict=True)]
        return result

    def put_back(self) -> None:
        """Puts back what the work has moved; once more does nothing."""
        if self not in _open:
            return
        now = self._states()
        ours = [not _same(a, b) for a, b in zip(now, self._before, strict=True)]
        if any(ours) and self._beside_others():
            if self._drew is not None:
                ours = [a and b for a, b in zip(ours, self._drew, strict=True)]
            end = time.monotonic() + max(REST, min(2 * self._watched, MOST_REST))
            while any(ours) and time.monotonic() < end:
                time.sleep(REST / 10)
                ours = [o and _same(a, b) for o, a, b in zip(ours, now, self._states(), strict=True)]
        for i, (_, write) in enumerate(self._all):
            if ours[i]:
                write(self._before[i])
                self._hand_on(i)
        _open.remove(self)

    def _states(self) -> list[Any]:
        return [read() for read, _ in self._all]

    def _beside_others(self) -> bool:
        """Whether Python has threads besides the one that works, and this one, which may put back for it."""
        return beside_others(self.thread)

    def _hand_on(self, i: int) -> None:
        """Lets other threads' work that began since, and found the generator moved, put back what was before this work."""
        for later in _open[_open.index(self) + 1 :]:
            if later.thread != self.thread and i < len(later._before):
                later._before[i] = self._before[i]


def beside_others(*own: int) -> bool:
    """Whether Python has threads besides this one and those of these identities."""
    return bool(sys._current_frames().keys() - {threading.get_ident(), *own})


REST, MOST_REST = 0.02, 0.2
"""Seconds in which a thread that draws all the time would be seen to do so; more, where the work took long to be watched."""

_open: list[GlobalGenerators] = []


def _set_cuda_state(device: torch.device, state: torch.Tensor) -> None:
    torch.cuda.set_rng_state(state, device)


def _same(a: Any, b: Any) -> bool:
    """Whether two states of a generator are the same: numbers, arrays, tensors, and tuples or dicts of these."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(value, b[key]) for key, value in a.items())
    if isinstance(a, tuple) and any(isinstance(part, np.ndarray) for part in a):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
