"""Scoring against the plain forward pass: `pytest bench/test_scoring.py --benchmark-only`."""

from __future__ import annotations

import models
import pytest
import torch

import saal_fast

CASES = {"resnet18": (models.resnet18, 64, 4), "vit": (models.vit, 64, 8), "mlp": (models.mlp, 512, 16)}
CONTESTANTS = ("forward", "ghost", "vmap", "reference")


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("case", CASES)
def test_score(benchmark, case, contestant):
    build, n, few = CASES[case]
    benchmark.group = case
    torch.manual_seed(0)
    model, pool = build(n)
    if contestant == "reference":
        pool = pool[:few]
    benchmark.extra_info["samples"] = len(pool)
    if contestant == "forward":
        run = lambda: torch.cat([model(x) for x in pool.split(min(64, n))])  # noqa: E731
    else:
        ours = saal_fast.score(model, pool[:few], engine=contestant)
        torch.testing.assert_close(ours, saal_fast.score(model, pool[:few], engine="reference"), rtol=1e-4, atol=1e-5)
        run = lambda: saal_fast.score(model, pool, engine=contestant)  # noqa: E731
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
