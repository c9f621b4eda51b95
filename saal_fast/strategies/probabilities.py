"""Uncertainty from the class probabilities alone: entropy, variation ratio, least confidence, margin.

Each is computed so that it keeps its digits where the model is nearly certain: `1 - max p` as the sum of the other classes'
probabilities, and so on. In fp32 the plain formulas round all of these samples to 0 and leave them without an order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..models.features import BatchSize, logits
from .base import OnNonFinite, Selection, TrainsNothing, check_batch_size, check_on_nonfinite, check_request, largest


@dataclass
class _ByProbabilities(TrainsNothing, ABC):
    """Chooses the k most uncertain; of equals the earlier sample.

    Args:
        batch_size: samples at once, or "auto".
        on_nonfinite: "raise" where outputs hold NaN or inf, or "keep" these samples and never pick one.
    """

    name: ClassVar[str]
    batch_size: BatchSize = "auto"
    on_nonfinite: OnNonFinite = "raise"

    def __post_init__(self) -> None:
        check_on_nonfinite(self.on_nonfinite)
        check_batch_size(self.batch_size)

    @staticmethod
    @abstractmethod
    def uncertainty(log_p: Tensor) -> Tensor:
        """What the strategy holds of log-probabilities: float64 [N, C] to float64 [N]."""

    def select(
        self,
        model: nn.Module,
        pool: Any,
        k: int,
        *,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """As `Strategy.select`; nothing is drawn, and `labelled` is not used."""
        check_request(k, pool, generator)
        z = logits(model, pool, batch_size=self.batch_size).double()
        scores = self.uncertainty(z.log_softmax(1))
        known = z.isfinite().all(1)
        return largest(torch.where(known, scores, torch.nan), k, self.on_nonfinite)


@dataclass
class Entropy(_ByProbabilities):
    """Shannon's entropy of the prediction in bits, `-Σ p log₂ p` (paper, Section 2.2)."""

    name = "entropy"

    @staticmethod
    def uncertainty(log_p: Tensor) -> Tensor:
        """In [0, log₂ C]."""
        others = _without(log_p, log_p.argmax(1))
        rest = others.exp().sum(1)
        nats = -(others.exp() * others.clamp(min=-1e300)).sum(1) - (1 - rest) * torch.log1p(-rest)
        return nats / math.log(2)


@dataclass
class VariationRatio(_ByProbabilities):
    """`1 - max p` (Freeman, 1965; paper, Section 2.2)."""

    name = "variation-ratio"

    @staticmethod
    def uncertainty(log_p: Tensor) -> Tensor:
        """In [0, 1 - 1/C]."""
        return _without(log_p, log_p.argmax(1)).exp().sum(1)


@dataclass
class LeastConfidence(VariationRatio):
    """`1 - max p`, by the name of Lewis & Gale (1994): of one model's prediction it is the variation ratio."""

    name = "least-confidence"


@dataclass
class Margin(_ByProbabilities):
    """`1 - (p₁ - p₂)` for the two likeliest classes (Scheffer et al., 2001): the smaller their distance, the larger."""

    name = "margin"

    @staticmethod
    def uncertainty(log_p: Tensor) -> Tensor:
        """In [0, 1]."""
        rest = _without(log_p, log_p.argmax(1)).exp()
        return rest.sum(1) + rest.amax(1)


def _without(log_p: Tensor, label: Tensor) -> Tensor:
    return log_p.scatter(1, label[:, None], -torch.inf)
