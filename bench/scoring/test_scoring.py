"""Scoring against the plain forward pass: `pytest bench/scoring/test_scoring.py --benchmark-only`."""

from __future__ import annotations

import math

import pytest
import timed_models as models
import torch
from racing import race

import saal_fast

CASES = {  # pool, samples that are compared first, samples of a batch of the plain forward pass
    "resnet18": (models.resnet18, 192, 4, 64),
    "vit": (models.vit, 128, 8, 64),
    "vit_b_16": (models.vit_b_16, 32, 1, 16),
    "mlp": (models.mlp, 2048, 16, 64),
}
RULES = {
    "adaptive": {"adaptive": True},
    "p=inf": {"norm": math.inf, "rho": 1e-4},  # 0.05 in every weight is the end of any network
    "bf16": {"precision": "bf16"},
}


def compare(benchmark, case, contestant, rounds=5, **rule):
    """Times a contestant, each round right after a plain forward pass of the same pool: a drifting machine slows both."""
    build, n, few, plain = CASES[case]
    model, pool = build(n)
    if contestant in ("vmap", "reference"):
        pool = pool[: n // 4]

    def forward():
        return torch.cat([model(x) for x in pool.split(plain)])

    def score():
        return saal_fast.score(model, pool, engine=contestant, **rule)

    if contestant != "forward":  # right before fast
        expected = saal_fast.score(model, pool[:few], engine="reference", **rule)
        digits = {"rtol": 1e-4, "atol": 1e-5} if rule.get("precision") is None else {"rtol": 0.05, "atol": 0.05}
        torch.testing.assert_close(saal_fast.score(model, pool[:few], engine=contestant, **rule), expected, **digits)
    race(benchmark, forward if contestant == "forward" else score, forward, len(pool), rounds)


@pytest.mark.parametrize("contestant", ["forward", "ghost", "vmap", "reference"])
@pytest.mark.parametrize("case", ["resnet18", "vit", "mlp"])
def test_engines(benchmark, case, contestant):
    benchmark.group = f"{case}, L2"
    compare(benchmark, case, contestant)


@pytest.mark.parametrize("contestant", ["forward", "ghost"])
def test_large(benchmark, contestant):
    benchmark.group = "vit_b_16, L2"
    compare(benchmark, "vit_b_16", contestant, rounds=3)


@pytest.mark.parametrize("contestant", ["forward", "ghost"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", ["resnet18", "mlp"])
def test_rules(benchmark, case, rule, contestant):
    benchmark.group = f"{case}, {rule}"
    compare(benchmark, case, contestant, **RULES[rule])
