"""Timing against a plain forward pass, which a drifting machine slows as much."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def race(benchmark: Any, work: Callable[[], object], plain: Callable[[], object], samples: int, rounds: int) -> None:
    """Times work, each round right after a plain forward pass.

    Args:
        benchmark: pytest-benchmark's fixture.
        work: what is timed.
        plain: a forward pass of the same samples.
        samples: that `work` takes.
        rounds: after one to warm up.
    """
    beside = benchmark.extra_info["forward"] = []

    def lap() -> None:
        start = time.perf_counter()
        plain()
        beside.append(time.perf_counter() - start)

    benchmark.extra_info["samples"] = samples
    benchmark.pedantic(work, setup=lap, rounds=rounds, warmup_rounds=1)
    del beside[: len(beside) - len(benchmark.stats.stats.data)]  # those before the warm-up
