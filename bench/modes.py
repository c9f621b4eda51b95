"""Whether the cost model picks the fastest mode for a layer: every mode that is open, timed.

python bench/modes.py [adaptive]

A network of one convolution is scored as a batch, in each mode by turns; the times are medians. Costs
are those of `mode_costs`, in millions of multiply-adds a sample; `*` marks its pick.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from torch import Tensor, nn

from saal_fast import perturbation
from saal_fast.engines import Problem
from saal_fast.engines.ghost import Ghost
from saal_fast.engines.ghost.plan import mode_costs, record_usage
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
    """Seconds of a batch by each mode, and each mode's cost by the cost model."""
    problem = Problem.of(model, rule, Classification())
    batch = Batch((pool,), {}, len(pool))
    calls = next(iter(record_usage(problem, batch.slice(0, 1)).uses().values()))
    costs = mode_costs(calls, rule.linear)
    engines = {mode: Ghost(problem, choose=lambda calls, linear, mode=mode: mode) for mode in costs}
    times = {mode: [] for mode in engines}
    for engine in engines.values():
        engine(batch)  # plans and allocates
    for _ in range(ROUNDS):
        for mode, engine in engines.items():
            start = time.perf_counter()
            engine(batch)
            times[mode].append(time.perf_counter() - start)
    return {mode: statistics.median(of_mode) for mode, of_mode in times.items()}, costs


def main(*options: str) -> None:
    rule = perturbation.make(0.05, adaptive="adaptive" in options)
    torch.manual_seed(0)
    with torch.no_grad(), memory.freed_is_kept(torch.device("cpu")):
        for name, (channels, outputs, size, kernel, stride) in LAYERS.items():
            model, pool = One(channels, outputs, kernel, stride).eval(), torch.randn(SAMPLES, channels, size, size)
            found, costs = seconds(model, pool, rule)
            picked = min(costs, key=costs.get)
            cells = [
                f"{mode}{'*' if mode == picked else ''} {1e3 * found[mode]:.1f} ms ({costs[mode] / 1e6:.0f} M)"
                for mode in sorted(found, key=found.get)
            ]
            print(f"{name:22}", "   ".join(cells))


if __name__ == "__main__":
    main(*sys.argv[1:])
