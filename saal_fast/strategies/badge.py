"""BADGE: k-means++ over the gradients of the last layer (Ash et al., arXiv:1906.03671), kept as factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from .._utils.rng import ensure_generator
from ..kmeans import kmeans_plusplus
from ..models.features import BatchSize
from ..selection.gradient_embeddings import gradient_factors
from ..tasks import logit_gradient
from .choice import candidates, check_options, check_request
from .protocol import OnNonFinite, Selection, WithoutTraining


@dataclass
class BADGE(WithoutTraining):
    """Chooses samples of large and different gradients: the largest first, then by D² sampling.

    The scores are the gradients' norms, ‖a‖·‖h‖.

    Args:
        layer: the last layer; None for the last `nn.Linear` that the model runs.
        batch_size: samples per batch, or "auto".
        on_nonfinite: "raise" for an error where features or outputs hold NaN or inf, or "keep" to pass these samples over.
    """

    layer: str | None = None
    batch_size: BatchSize = "auto"
    on_nonfinite: OnNonFinite = "raise"
    name: ClassVar[str] = "badge"

    def __post_init__(self) -> None:
        check_options(self.batch_size, self.on_nonfinite)

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
        picks = kmeans_plusplus((a[good], h[good]), k, first="argmax", seed=ensure_generator(generator))
        return Selection(good[picks], scores.float())
