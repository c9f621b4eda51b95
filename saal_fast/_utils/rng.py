"""Random numbers: generators of a caller, and torch's, NumPy's and Python's global ones, which the caller gets back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


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
        generator = torch.Generator()
        generator.seed()
    return generator


def draw_seed(generator: torch.Generator | None) -> int:
    """A seed in [0, 2⁶²), drawn from the generator."""
    return int(torch.randint(2**62, (), generator=ensure_generator(generator)))


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
