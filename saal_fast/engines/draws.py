"""The random number generators that a forward pass may draw from."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._utils.rng import REST, beside_others
from ..models.held import held

Access = tuple[Callable[[], Any], Callable[[Any], Any]]
"""Functions that read and set a generator's state."""

OWN = "own"
"""The name of every generator that modules have of their own."""


class Draws:
    """The generators a forward pass may draw from, as they are now.

    These are torch's global ones (the CPU's, a CUDA device's), Python's, NumPy's, and those that modules have as attributes,
    in containers or in plain objects, three levels deep.

    Args:
        own: the modules' own (`own_generators`).
        device: where the model runs; None for the modules' own generators alone.
        names: of the global ones to look after ("torch", "python", "numpy", "cuda"); None for all.
    """

    def __init__(self, own: Iterable[Access], device: torch.device | None, names: frozenset[str] | None = None) -> None:
        shared = _shared_generators(device) if device else {}
        named = [(OWN, access) for access in own]
        named += [(name, access) for name, access in shared.items() if names is None or name in names]
        self.names, self.generators = [name for name, _ in named], [access for _, access in named]
        self.states = [get() for get, _ in self.generators]

    def moved(self) -> frozenset[str]:
        """Which have been drawn from since; beside other threads, of those only what does not move while this one rests."""
        now = [get() for get, _ in self.generators]
        ours = [not _equal(a, b) for a, b in zip(now, self.states, strict=True)]
        if any(ours) and beside_others():
            end = time.monotonic() + REST
            while any(ours) and time.monotonic() < end:
                time.sleep(REST / 10)
                ours = [o and _equal(get(), a) for o, (get, _), a in zip(ours, self.generators, now, strict=True)]
        return frozenset(name for name, o in zip(self.names, ours, strict=True) if o)

    def rewind(self) -> None:
        """Sets back those that have been drawn from since."""
        for (get, put), state in zip(self.generators, self.states, strict=True):
            if not _equal(get(), state):
                put(state)


def _shared_generators(device: torch.device) -> dict[str, Access]:
    shared: dict[str, Access] = {
        "torch": (torch.get_rng_state, torch.set_rng_state),
        "python": (random.getstate, random.setstate),
        "numpy": (np.random.get_state, np.random.set_state),
    }
    if device.type == "cuda":
        shared["cuda"] = lambda: torch.cuda.get_rng_state(device), lambda state: torch.cuda.set_rng_state(state, device)
    return shared


def own_generators(model: nn.Module) -> Iterator[Access]:
    """The generators that modules keep as attributes, in containers or in plain objects, three levels deep."""
    for value in _found_generators(model):
        if isinstance(value, torch.Generator):
            yield value.get_state, value.set_state
        elif isinstance(value, np.random.Generator | np.random.BitGenerator):
            bits = value.bit_generator if isinstance(value, np.random.Generator) else value
            yield (
                lambda bits=bits: bits.state,  # type: ignore[misc]
                lambda state, bits=bits: setattr(bits, "state", state),  # type: ignore[misc]
            )
        elif isinstance(value, np.random.RandomState):
            yield value.get_state, value.set_state
        else:
            yield value.getstate, value.setstate


_GENERATORS = torch.Generator | np.random.Generator | np.random.BitGenerator | np.random.RandomState | random.Random


def _found_generators(model: nn.Module) -> Iterator[Any]:
    found = (v for m in model.modules() for v in held(m, objects=True))
    generators = {id(v): v for v in found if isinstance(v, _GENERATORS) and not isinstance(v, random.SystemRandom)}
    yield from generators.values()


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, dict):
        return all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple) and any(isinstance(v, np.ndarray) for v in a):
        return all(map(_equal, a, b))
    return bool(a == b)
