"""What the self-check costs: `pytest bench/scoring/test_bench_self_check.py --benchmark-only`."""

from __future__ import annotations

import copy
import time

import timed_models as models

import saal_fast
from saal_fast.scoring.self_check import SelfCheck

SCORED = 192
POOL = 2000
MAX_SHARE = 0.02
"""Share of the time that scoring `POOL` samples takes."""


def test_share_of_scoring(benchmark, capsys):
    """The check's seconds over those of scoring `SCORED` samples without it, times `POOL / SCORED`."""
    benchmark.group = "self-check, ResNet-18"
    model, pool = models.resnet18(SCORED)
    spent = []
    inner = SelfCheck._guarded

    def timed(itself, work):
        start = time.perf_counter()
        try:
            inner(itself, work)
        finally:
            spent.append(time.perf_counter() - start)

    saal_fast.score(model, pool[:64], check=False)  # warm
    start = time.perf_counter()
    saal_fast.score(model, pool, check=False)
    scoring = (time.perf_counter() - start) * POOL / SCORED

    def check():
        spent.clear()
        SelfCheck._guarded = timed
        try:
            found = saal_fast.score(copy.deepcopy(model), pool[:64], details=True)  # another object: nothing is known of it
        finally:
            SelfCheck._guarded = inner
        assert found.checked.startswith("agreed on samples")
        return sum(spent)

    seconds = min(check() for _ in range(3))
    benchmark.pedantic(check, rounds=1)
    benchmark.extra_info.update(check=seconds, scoring=scoring)
    with capsys.disabled():
        print(f"\nself-check {seconds:.2f} s, {POOL} samples {scoring:.0f} s: {seconds / scoring:.2%}")
    assert seconds <= MAX_SHARE * scoring
