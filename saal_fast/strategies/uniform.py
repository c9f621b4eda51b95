"""The baseline that every strategy must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ..pools import Stream
from .base import Selection, TrainsNothing, check_request, drawing_from, or_fresh


@dataclass
class Random(TrainsNothing):
    """Chooses k samples uniformly. It asks nothing of the model, and holds nothing of a sample: its scores are NaN."""

    name: ClassVar[str] = "random"

    def select(
        self,
        model: nn.Module,
        pool: Any,
        k: int,
        *,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """As `Strategy.select`; `model` and `labelled` are not used."""
        check_request(k, pool, generator)
        stream, draws = Stream(pool, torch.device("cpu")), or_fresh(generator)
        with drawing_from(draws):  # for what a DataLoader draws itself
            n = sum(b.size for b in stream.batches(1024)) if stream.length is None else stream.length
        if k > n:
            raise ValueError(f"expected k <= {n}, the size of the pool; got k={k}")
        return Selection(torch.randperm(n, generator=draws)[:k], torch.full((n,), torch.nan))
