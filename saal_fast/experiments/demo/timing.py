"""Times a plain forward pass, SAAL by its default engine, and SAAL by the reference engine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch

from ...scoring import score

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


@dataclass(frozen=True)
class Timing:
    """Milliseconds a sample: medians of repeats over the same samples.

    Attributes:
        samples: number of samples in a repeat.
        forward: a plain forward pass of one batch.
        fast: `score` by its default engine, in one batch.
        reference: `score` by the reference engine, one sample at a time.
    """

    samples: int
    forward: float
    fast: float
    reference: float


def measure(model: nn.Module, images: torch.Tensor, rho: float, repeats: int = 3) -> Timing:
    """Times the three on `images` [N, C, H, W] in turn; the first turn does not count."""
    count = len(images)

    @torch.no_grad()
    def forward() -> None:
        model(images)

    def fast() -> None:
        score(model, images, rho, batch_size=count, progress=False)

    def reference() -> None:
        score(model, images, rho, engine="reference", progress=False)

    contestants: tuple[Callable[[], None], ...] = (forward, fast, reference)
    seconds = [[_seconds(run) for run in contestants] for _ in range(repeats + 1)]
    medians = [1e3 * median(column) / count for column in zip(*seconds[1:], strict=True)]
    return Timing(count, *medians)


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
