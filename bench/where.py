"""Where the time of a batch goes: every operation of the ghost engine, timed one by one.

python bench/where.py [resnet18|vit|vit_b_16|mlp] [samples] [adaptive] [bf16]
"""

from __future__ import annotations

import sys
import time
from collections import Counter

import timed_models as models
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saal_fast import perturbation
from saal_fast.engines import ENGINES, Problem
from saal_fast.models import memory
from saal_fast.pools import Batch
from saal_fast.tasks import Classification

ROUNDS, LINES = 4, 30


class Clock(TorchDispatchMode):
    """Sums seconds and calls for each operation and its shapes."""

    def __init__(self):
        super().__init__()
        self.seconds, self.calls = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        start = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        spent = time.perf_counter() - start
        key = (func.name().partition("::")[2], str([tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]))
        self.seconds[key] += spent
        self.calls[key] += 1
        return out


def main(name: str = "resnet18", samples: str = "64", *options: str) -> None:
    torch.manual_seed(0)
    model, pool = getattr(models, name)(int(samples))
    precision = torch.bfloat16 if "bf16" in options else None
    rule = perturbation.make(0.05, adaptive="adaptive" in options)
    problem = Problem.of(model, rule, Classification(), precision=precision)
    engine, batch = ENGINES["ghost"](problem), Batch((pool,), {}, len(pool))
    with torch.no_grad(), memory.freed_is_kept(problem.device):
        for _ in range(2):
            model(pool)
            engine(batch)
        start = time.perf_counter()
        model(pool)
        forward = time.perf_counter() - start
        with Clock() as clock:
            start = time.perf_counter()
            for _ in range(ROUNDS):
                engine(batch)
            whole = (time.perf_counter() - start) / ROUNDS
    inside = sum(clock.seconds.values()) / ROUNDS
    print(
        f"{name}, {samples} samples, {torch.get_num_threads()} threads: {1e3 * whole:.0f} ms a batch, {1e3 * inside:.0f} in"
    )
    print(f"{sum(clock.calls.values()) // ROUNDS} operations; a plain forward pass {1e3 * forward:.0f} ms\n")
    kinds = Counter()
    for (operation, _), seconds in clock.seconds.items():
        kinds[operation] += seconds
    for operation, seconds in kinds.most_common(15):
        print(f"{1e3 * seconds / ROUNDS:9.1f} ms {seconds / ROUNDS / inside:6.1%}  {operation}")
    print()
    for (operation, shapes), seconds in clock.seconds.most_common(LINES):
        calls = clock.calls[operation, shapes] // ROUNDS
        print(f"{1e3 * seconds / ROUNDS:9.1f} ms {calls:4} × {operation:28} {shapes}")


if __name__ == "__main__":
    main(*sys.argv[1:])
