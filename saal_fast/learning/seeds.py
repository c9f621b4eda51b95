"""One seed for every draw of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._utils.checks import check_whole
from .._utils.rng import mend_seed


class Seeds:
    """A stream of seeds from one seed; its state is plain numbers that a record can hold.

    Args:
        seed: the run's seed, in [0, 2⁶³).

    Raises:
        TypeError: the seed is not a whole number.
        ValueError: the seed is out of range.
    """

    def __init__(self, seed: int) -> None:
        hint = mend_seed(seed)
        if hint:
            raise TypeError(f"expected seed to be a whole number, got {type(seed).__name__}{hint}")
        check_whole("seed", seed)
        if not 0 <= seed < 2**63:
            raise ValueError(f"expected a seed in [0, 2⁶³), got {seed}")
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def draw(self) -> int:
        """The next seed, in [0, 2⁶³)."""
        return int(self._generator.integers(2**63))

    @property
    def state(self) -> dict[str, Any]:
        """The state that `restore` takes; plain numbers and strings."""
        return dict(self._generator.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Sets the stream to the state it was in when `state` was read."""
        self._generator.bit_generator.state = state
