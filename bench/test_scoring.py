"""Scoring against the plain forward pass: `pytest bench/test_scoring.py --benchmark-only`."""

from __future__ import annotations

import math

import models
import pytest
import torch

import saal_fast

CASES = {"resnet18": (models.resnet18, 64, 4), "vit": (models.vit, 64, 8), "mlp": (models.mlp, 512, 16)}
RULES = {
    "adaptive": {"adaptive": True},
    "p=inf": {"norm": math.inf, "rho": 1e-4},
}  # 0.05 in every weight is the end of any network


def run_for(contestant, model, pool, few, **rule):
    """What is timed, after its scores have been compared with the reference's."""
    if contestant == "forward":
        return lambda: torch.cat([model(x) for x in pool.split(64)])
    ours = saal_fast.score(model, pool[:few], engine=contestant, **rule)
    expected = saal_fast.score(model, pool[:few], engine="reference", **rule)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    return lambda: saal_fast.score(model, pool, engine=contestant, **rule)


@pytest.mark.parametrize("contestant", ["forward", "ghost", "vmap", "reference"])
@pytest.mark.parametrize("case", CASES)
def test_engines(benchmark, case, contestant):
    build, n, few = CASES[case]
    benchmark.group = f"{case}, L2"
    model, pool = build(n)
    if contestant in ("vmap", "reference"):
        pool = pool[: 4 * few]
    benchmark.extra_info["samples"] = len(pool)
    benchmark.pedantic(run_for(contestant, model, pool, few), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("contestant", ["forward", "ghost"])
@pytest.mark.parametrize("rule", ["adaptive", "p=inf"])
@pytest.mark.parametrize("case", ["resnet18", "mlp"])
def test_rules(benchmark, case, rule, contestant):
    build, n, few = CASES[case]
    benchmark.group = f"{case}, {rule}"
    model, pool = build(n)
    benchmark.extra_info["samples"] = len(pool)
    benchmark.pedantic(run_for(contestant, model, pool, few, **RULES[rule]), rounds=5, warmup_rounds=1)
