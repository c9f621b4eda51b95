"""What a family is, and how one joins the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        make: gives a model and a pool for it, small.
        engine: by which `score` must run it.
        slow: whether only the slow tests try it.
    """

    make: Callable[[], tuple[nn.Module, Any]]
    engine: str
    slow: bool


class Family(NamedTuple):
    """A family's model in float64 and in eval mode, a pool for it, and the engine by which `score` must run it."""

    model: nn.Module
    pool: Any
    engine: str


FAMILIES: dict[str, Row] = {}


def family(make: Any = None, *, engine: str = "ghost", slow: bool = False) -> Any:
    """Registers a function that gives a model and a pool, under its name."""

    def register(make: Any) -> Any:
        if make.__name__ in FAMILIES:
            raise ValueError(f"expected a family of a new name, got {make.__name__} a second time")
        FAMILIES[make.__name__] = Row(make, engine, slow)
        return make

    return register if make is None else register(make)


def slow(name: str) -> bool:
    """Whether only the slow tests try this family."""
    return FAMILIES[name].slow


def build(name: str) -> Family:
    """The family of this name, always the same; every weight, bias and statistic is random, so that each matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, pool = FAMILIES[name].make()
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p)
    return Family(model.double().eval(), tree_map(_double, pool), FAMILIES[name].engine)


def _double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
