"""What a batch costs the host: a network so narrow, and batches so small, that dispatch is all there is.

OMP_NUM_THREADS=1 python bench/host.py

Every batch runs right after a plain forward pass of the same samples; the result is the median of the ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import timed_models as models
import torch

from saal_fast import perturbation
from saal_fast.engines import ENGINES, Problem
from saal_fast.engines.capture.captured_engine import CapturedEngine
from saal_fast.engines.capture.cpu_trace import cpu_trace
from saal_fast.models import memory
from saal_fast.pools import Batch
from saal_fast.tasks import Classification

ROUNDS = 60


def ratio(work: Callable[[], object], beside: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of `work`, and the median of its ratio to `beside`, which runs right before it."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        beside()
        middle = time.perf_counter()
        work()
        times.append((time.perf_counter() - middle, middle - start))
    return statistics.median(t for t, _ in times), statistics.median(t / b for t, b in times)


def main() -> None:
    torch.manual_seed(0)
    model, pool = models.resnet18(4, width=4)
    batch = Batch((pool,), {}, len(pool))
    for name, options in {"L2": {}, "adaptive": {"adaptive": True}}.items():
        engine = ENGINES["ghost"](Problem.of(model, perturbation.make(0.05, **options), Classification()))
        recorded = CapturedEngine(engine, cpu_trace, at=2)
        with torch.no_grad(), memory.freed_is_kept(pool.device):
            start = time.perf_counter()
            for _ in range(3):
                recorded(batch)
            assert recorded.replays, recorded.refused
            torch.testing.assert_close(recorded(batch), engine(batch), rtol=1e-4, atol=1e-6)
            print(f"{name}: {time.perf_counter() - start:.1f} s to record")
            for how, scorer in (("the engine", engine), ("its trace", recorded)):
                seconds, times = ratio(lambda s=scorer: s(batch), lambda: model(pool))
                print(f"{name}: {how:12}{1e3 * seconds:8.1f} ms a batch{times:8.1f} x forward")


if __name__ == "__main__":
    main()
