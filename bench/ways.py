"""Whether the cost model picks the fastest way for a layer: every way that is open, timed.

python bench/ways.py [adaptive]

A network of one convolution is scored as a batch, in each way by turns; the times are medians. Costs
are those of `ways_of`, in millions of multiply-adds a sample; `*` marks its pick.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from torch import Tensor, nn

from saal_fast import perturbation
from saal_fast.engines import Problem
from saal_fast.engines.ghost import engine as ghost
from saal_fast.engines.ghost import plan
from saal_fast.models import memory
from saal_fast.pools import Batch
from saal_fast.tasks import Classification

SAMPLES, ROUNDS = 32, 5
LAYERS = {  # channels, outputs, size of the images, kernel, stride
    "3x3 64-64, T=1024": (64, 64, 32, 3, 1),
    "3x3/2 64-128, T=256": (64, 128, 32, 3, 2),
    "3x3 128-128, T=256": (128, 128, 16, 3, 1),
    "3x3/2 128-256, T=64": (128, 256, 16, 3, 2),
    "1x1/2 128-256, T=64": (128, 256, 16, 1, 2),
    "3x3 256-256, T=64": (256, 256, 8, 3, 1),
    "3x3 512-512, T=16": (512, 512, 4, 3, 1),
}


class One(nn.Module):
    """A convolution, and logits that depend on all of its outputs."""

    def __init__(self, channels: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).square().mean((2, 3))


def seconds(model: nn.Module, pool: Tensor, rule: perturbation.Perturbation) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of a batch by each way, and each way's cost by the cost model."""
    problem = Problem.of(model, rule, Classification())
    batch = Batch((pool,), {}, len(pool), 0)
    calls = next(iter(plan.watched(problem, (pool[:1],), {}).uses().values()))
    costs, pick = plan.ways_of(calls, rule.linear), plan.best_way
    engines = {}
    try:
        for way in costs:
            plan.best_way = lambda calls, linear, way=way: way
            engines[way] = ghost.Ghost(problem)
            engines[way](batch, None)  # plans and allocates
    finally:
        plan.best_way = pick
    times = {way: [] for way in engines}
    for _ in range(ROUNDS):
        for way, engine in engines.items():
            start = time.perf_counter()
            engine(batch, None)
            times[way].append(time.perf_counter() - start)
    return {way: statistics.median(of_way) for way, of_way in times.items()}, costs


def main(*options: str) -> None:
    rule = perturbation.make(0.05, adaptive="adaptive" in options)
    torch.manual_seed(0)
    with torch.no_grad(), memory.freed_is_kept(torch.device("cpu")):
        for name, (channels, outputs, size, kernel, stride) in LAYERS.items():
            model, pool = One(channels, outputs, kernel, stride).eval(), torch.randn(SAMPLES, channels, size, size)
            found, costs = seconds(model, pool, rule)
            picked = min(costs, key=costs.get)
            cells = [
                f"{way}{'*' if way == picked else ''} {1e3 * found[way]:.1f} ms ({costs[way] / 1e6:.0f} M)"
                for way in sorted(found, key=found.get)
            ]
            print(f"{name:22}", "   ".join(cells))


if __name__ == "__main__":
    main(*sys.argv[1:])
