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
        raise TypeError(f"expected generator to be a torch.Generator or None, got {type(generator).__name__}")


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
