"""Parts of models, and the set-up of a call, against plain forward passes.

    pytest bench/scoring/test_bench_families.py --benchmark-only

The parts are what active learning perturbs where a backbone is frozen: the head, or the last block. The set-up is what a
call does beside its batches: a call on a pool of one sample, against a forward pass of that sample.
"""

from __future__ import annotations

import time

import pytest
import timed_models as models
import torch

import saal_fast

HEADS = {
    "resnet18": (models.resnet18, 256, 64, ("fc.",), ("fc.", "layer4.1")),
    "bert": (models.bert, 32, 16, ("classifier.",), ("classifier.", "bert.pooler", "bert.encoder.layer.5")),
}


def forward(model, pool, size):
    for batch in models.batches(pool, size):
        model(**batch) if isinstance(batch, dict) else model(batch)


def race(benchmark, work, plain, samples, rounds):
    """Times work, each round right after a plain pass."""
    beside = benchmark.extra_info["forward"] = []

    def lap():
        start = time.perf_counter()
        plain()
        beside.append(time.perf_counter() - start)

    benchmark.extra_info["samples"] = samples
    benchmark.pedantic(work, setup=lap, rounds=rounds, warmup_rounds=1)
    del beside[: len(beside) - len(benchmark.stats.stats.data)]  # those before the warm-up


@pytest.mark.parametrize("contestant", ["forward", "ghost", "reference"])
@pytest.mark.parametrize("part", ["head", "last block"])
@pytest.mark.parametrize("name", HEADS)
def test_parts(benchmark, name, part, contestant):
    benchmark.group = f"{name}, {part}"
    build, n, size, head, block = HEADS[name]
    model, pool = build(n)
    chosen = head if part == "head" else block

    def params(name):
        return name.startswith(chosen)

    few = models.first(pool, 4)
    fast, plain = (saal_fast.score(model, few, params=params, engine=engine) for engine in ("ghost", "reference"))
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    if contestant == "reference":
        pool = models.first(pool, n // 4)

    def work():
        if contestant == "forward":
            forward(model, pool, size)
        else:
            saal_fast.score(model, pool, params=params, engine=contestant, progress=False)

    race(benchmark, work, lambda: forward(model, pool, size), n // 4 if contestant == "reference" else n, rounds=5)


@pytest.mark.parametrize("contestant", ["forward", "first call", "further call"])
@pytest.mark.parametrize("name", HEADS)
def test_set_up(benchmark, name, contestant):
    """Calls on one sample, without the self-check; their own three passes of it counted."""
    benchmark.group = f"{name}, a call on one sample"
    model, pool = HEADS[name][0](1)

    def work():
        if contestant == "forward":
            forward(model, pool, 1)
        else:
            model.call = object() if contestant == "first call" else None  # a setting that is new: nothing is known
            saal_fast.score(model, pool, check=False, progress=False)

    race(benchmark, work, lambda: forward(model, pool, 1), 1, rounds=15)
