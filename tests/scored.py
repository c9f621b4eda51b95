"""`score` with its inner parts replaced: fused operations, modes, captures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from saal_fast.engines import ENGINES, Engine
from saal_fast.engines.capture import captured
from saal_fast.engines.ghost import Ghost
from saal_fast.engines.ghost.backends import Backends
from saal_fast.engines.ghost.plan import Choice
from saal_fast.scoring import ScoreOptions, Scores, score_pool
from saal_fast.scoring.runner import Runner


def scored(
    model: nn.Module,
    pool: Any,
    rho: float = 0.05,
    *,
    backends: Backends | None = None,
    choose: Choice | None = None,
    capture: Callable[..., Engine] = captured,
    **options: Any,
) -> Scores:
    """`score(..., details=True)` by a ghost engine of these backends and modes, its batches captured by `capture`."""
    engines = {**ENGINES, "ghost": partial(Ghost, backends=backends, choose=choose)}
    make_runner = partial(Runner, engines=engines, capture=capture)
    return score_pool(model, pool, ScoreOptions.of(rho, options), make_runner)
