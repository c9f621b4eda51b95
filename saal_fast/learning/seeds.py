"""One seed for every draw of a run, and generators that leave the caller's alone."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._utils.checks import is_whole

if TYPE_CHECKING:
    from collections.abc import Iterator


class Seeds:
    """A stream of seeds from one seed, whose state can be written down.

    Args:
        seed: the first of all, in [0, 2⁶³).

    Raises:
        TypeError: the seed is no whole number.
        ValueError: the seed is out of range.
    """

    def __init__(self, seed: int) -> None:
        if not is_whole(seed):
            raise TypeError(f"expected seed to be a whole number, got {seed!r}")
        if not 0 <= seed < 2**63:
            raise ValueError(f"expected a seed in [0, 2⁶³), got {seed}")
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def draw(self) -> int:
        """The next seed, in [0, 2⁶³)."""
        return int(self._generator.integers(2**63))

    @property
    def state(self) -> dict[str, Any]:
        """What `restore` takes; plain numbers and strings."""
        return dict(self._generator.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to where `state` was read."""
        self._generator.bit_generator.state = state


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the global generators of torch, NumPy and Python start from `seed`; on leaving they are as before."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
