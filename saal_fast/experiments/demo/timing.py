"""Milliseconds a sample: SAAL as fast as it goes, SAAL one sample at a time, and a plain forward pass."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch

import saal_fast

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


@dataclass(frozen=True)
class Timing:
    """Milliseconds a sample, each the median of a few repeats over the same samples.

    Attributes:
        samples: how many samples a repeat goes through.
        forward: a plain forward pass, all samples in one batch.
        fast: `saal_fast.score` with its default engine, all samples in one batch.
        reference: `saal_fast.score` with the reference engine, one sample at a time.
    """

    samples: int
    forward: float
    fast: float
    reference: float


def measure(model: nn.Module, images: torch.Tensor, rho: float, repeats: int = 3) -> Timing:
    """Time the three over `images` [N, C, H, W], turn by turn, after one unmeasured turn."""
    count = len(images)

    @torch.no_grad()
    def forward() -> None:
        model(images)

    def fast() -> None:
        saal_fast.score(model, images, rho, batch_size=count, progress=False)

    def reference() -> None:
        saal_fast.score(model, images, rho, engine="reference", progress=False)

    contestants: tuple[Callable[[], None], ...] = (forward, fast, reference)
    seconds = [[_seconds(run) for run in contestants] for _ in range(repeats + 1)]
    medians = [1e3 * median(column) / count for column in zip(*seconds[1:], strict=True)]
    return Timing(count, *medians)


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
