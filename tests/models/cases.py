"""What a case is, how it is built, and what several families are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CLASSES = 4
SAMPLES = 3


class Case(NamedTuple):
    """A model, a pool for it, and which parameters to perturb (None: all trainable ones)."""

    model: nn.Module
    pool: Any
    params: Callable[[str], bool] | None = None


CASES: dict[str, Callable[[], Case]] = {}


def case(function: Callable[[], Case]) -> Callable[[], Case]:
    CASES[function.__name__] = function
    return function


def build(name: str, dtype: torch.dtype = torch.float64) -> Case:
    """The case of this name, in eval mode, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, pool, params = CASES[name]()
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p)
        normed = [m for m in model.modules() if getattr(m, "running_mean", None) is not None]
        for module in normed:
            module.momentum = 1.0
        if normed:
            model.train()(pool)  # takes the pool's own statistics
    cast = {k: _cast(v, dtype) for k, v in pool.items()} if isinstance(pool, dict) else _cast(pool, dtype)
    return Case(model.to(dtype).eval(), cast, params)


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if x.is_floating_point() else x


def tokens(length: int = 6, vocabulary: int = 12) -> Tensor:
    """Token ids with paddings of 0 of different lengths at the end."""
    ids = torch.randint(1, vocabulary, (SAMPLES, length))
    for i in range(1, SAMPLES):
        ids[i, length - i :] = 0
    return ids


class Function(nn.Module):
    """Modules under their names, and a function `forward(self, *inputs)` of them."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(self, *args, **kwargs)


def images(channels: int = 3, *size: int) -> Tensor:
    return torch.randn(SAMPLES, channels, *(size or (8, 8)))


def factor_everything(patch: Any, *preferred: str) -> None:
    """Makes ghost factor whatever it can, also where that does not pay (these models are small); `patch` undoes it.

    Args:
        patch: pytest's MonkeyPatch.
        preferred: modes of `plan.mode_costs`, the first that is open being taken; none given: "ghost", "tiled".
    """
    preferred = preferred or ("ghost", "tiled")
    from saal_fast.engines.ghost import plan  # noqa: PLC0415 - the models themselves need nothing of saal_fast

    mode_costs = plan.mode_costs

    def least(calls: list[Any], linear: bool) -> str:
        return next(mode for mode in (*preferred, "autograd") if mode in mode_costs(calls, linear))

    patch.setattr(plan, "MIN_TILE_OUTPUTS", 1)
    patch.setattr(plan, "cheapest_mode", least)
