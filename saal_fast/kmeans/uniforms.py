"""Numbered uniforms: a hash of a key and a number, the same in C++ (`csrc/kmeans/policy.h`)."""

from __future__ import annotations

import operator
import os
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor

from .._utils.rng import mend_seed

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15


def draw_uniforms(count: int, seed: int | torch.Generator | None) -> Tensor:
    """The first uniforms in [0, 1) that `kmeans_plusplus` uses for a seed.

    They are SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) indexed by
    number, so each can be computed without those before.

    Args:
        count: Number of uniforms.
        seed: As in `kmeans_plusplus`.

    Returns:
        Uniforms, float64 [count], on the CPU.

    Raises:
        TypeError: seed is no integer, generator or None.
        ValueError: seed lies outside [0, 2⁶⁴).
    """
    start = int(_mix(np.array([(seed_to_key(seed) + _GAMMA) & _MASK], np.uint64))[0])
    numbers = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GAMMA) + np.uint64(start)
    return torch.from_numpy((_mix(numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mix(z: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray[tuple[int], np.dtype[np.uint64]] = z ^ (z >> np.uint64(31))
    return mixed


def seed_to_key(seed: int | torch.Generator | None) -> int:
    """The key in [0, 2⁶⁴) for a seed: the number itself, a generator's next draw, or fresh entropy.

    Raises:
        TypeError: seed is no integer, generator or None.
        ValueError: seed lies outside [0, 2⁶⁴).
    """
    if seed is None:
        return int.from_bytes(os.urandom(8), "little")
    if isinstance(seed, torch.Generator):
        drawn = torch.randint(-(2**63), 2**63 - 1, (), dtype=torch.int64, generator=seed, device=seed.device)
        return int(drawn) & _MASK
    hint = mend_seed(seed)
    if hint:
        raise TypeError(f"expected seed to be an integer, a torch.Generator or None, got {type(seed).__name__}{hint}")
    number = as_integer("seed", seed, "an integer, a torch.Generator or None")
    if not 0 <= number <= _MASK:
        raise ValueError(f"expected 0 <= seed < 2**64, got {number}")
    return number


def as_integer(name: str, value: object, expected: str) -> int:
    """Converts an integer of any type to an int; True and 1.0 are not integers.

    Raises:
        TypeError: value isn't an integer.
    """
    if type(value) is int:  # the check of a protocol takes microseconds
        return value
    if isinstance(value, SupportsIndex) and not isinstance(value, bool | np.bool_):
        try:
            return operator.index(value)
        except TypeError:
            pass  # a tensor has __index__, whatever it holds
    raise TypeError(f"expected {name} to be {expected}, got {value!r} ({type(value).__name__})")
