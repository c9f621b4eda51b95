"""Three engines that give the same numbers: `reference` defines them, `vmap` is simple, `ghost` is fast."""

from collections.abc import Callable

from .ghost import Ghost
from .problem import Engine, EngineError, Problem, Result
from .reference import Reference
from .vmap import Vmap

ENGINES: dict[str, Callable[[Problem], Engine]] = {"ghost": Ghost, "vmap": Vmap, "reference": Reference}
NAMES = tuple(ENGINES)

__all__ = ["ENGINES", "NAMES", "Engine", "EngineError", "Problem", "Result"]
