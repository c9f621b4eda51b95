"""BADGE: k-means++ over the gradients of the last layer (Ash et al., arXiv:1906.03671), kept as factors (`badge.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ..kmeans import kmeans_plusplus
from ..models.features import BatchSize
from ..selection.gradient_embeddings import gradient_factors
from ..tasks import logit_gradient
from .base import (
    OnNonFinite,
    Selection,
    TrainsNothing,
    candidates,
    check_batch_size,
    check_on_nonfinite,
    check_request,
    or_fresh,
)


@dataclass
class BADGE(TrainsNothing):
    """Chooses gradients that are large and different: the largest first, then by D² sampling.

    Scores are the norms of the gradients, ‖a‖·‖h‖.

    Args:
        layer: the last layer; None for the last `nn.Linear` that the model runs.
        batch_size: samples at once, or "auto".
        on_nonfinite: "raise" where features or outputs hold NaN or inf, or "keep" these samples and never pick one.
    """

    layer: str | None = None
    batch_size: BatchSize = "auto"
    on_nonfinite: OnNonFinite = "raise"
    name: ClassVar[str] = "badge"

    def __post_init__(self) -> None:
        check_on_nonfinite(self.on_nonfinite)
        check_batch_size(self.batch_size)

    def select(
        self,
        model: nn.Module,
        pool: Any,
        k: int,
        *,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """As `Strategy.select`; `labelled` is not used."""
        check_request(k, pool, generator)
        found = gradient_factors(model, pool, layer=self.layer, batch_size=self.batch_size)
        good = candidates(found.finite, k, self.on_nonfinite)
        a, h = logit_gradient(found.logits), found.features
        scores = torch.where(found.finite, a.double().norm(dim=1) * h.double().norm(dim=1), torch.nan)
        picks = kmeans_plusplus((a[good], h[good]), k, first="argmax", seed=or_fresh(generator))
        return Selection(good[picks], scores.float())
