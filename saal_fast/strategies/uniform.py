"""The baseline that every strategy must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from .._utils.rng import drawing_from, ensure_generator
from ..pools import Stream
from .choice import check_request
from .protocol import Selection, WithoutTraining


@dataclass
class Random(WithoutTraining):
    """Chooses k samples uniformly and never runs the model. Its scores are NaN."""

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
        stream, draws = Stream(pool, torch.device("cpu")), ensure_generator(generator)
        with drawing_from(draws):  # iterating a DataLoader draws from the global generator
            n = sum(b.size for b in stream.batches(1024)) if stream.length is None else stream.length
        if k > n:
            raise ValueError(f"expected k <= {n}, the size of the pool; got k={k}")
        return Selection(
            torch.randperm(n, generator=draws, device=draws.device)[:k],
            torch.full((n,), torch.nan, dtype=torch.float32, device="cpu"),
        )
