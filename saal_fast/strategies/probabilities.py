"""Uncertainty from the class probabilities alone: entropy, variation ratio, least confidence, margin.

Each is computed so that it keeps its precision where the model is nearly certain: `1 - max p` as the sum of the other
classes' probabilities, and so on. In fp32 the plain formulas round all of these samples to 0 and lose their order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..models.features import BatchSize, logits
from .choice import check_options, check_request, largest
from .protocol import OnNonFinite, Selection, WithoutTraining


@dataclass
class _ByProbabilities(WithoutTraining, ABC):
    """Chooses the k most uncertain samples; of equally uncertain ones the earlier.

    Args:
        batch_size: samples per batch, or "auto".
        on_nonfinite: "raise" for an error where outputs hold NaN or inf, or "keep" to pass these samples over.
    """

    name: ClassVar[str]
    batch_size: BatchSize = "auto"
    on_nonfinite: OnNonFinite = "raise"

    def __post_init__(self) -> None:
        check_options(self.batch_size, self.on_nonfinite)

    @staticmethod
    @abstractmethod
    def uncertainty(log_p: Tensor) -> Tensor:
        """The uncertainty of predictions, float64 [N], from their log-probabilities, float64 [N, C]."""

    def select(
        self,
        model: nn.Module,
        pool: Any,
        k: int,
        *,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """As `Strategy.select`; it draws nothing and does not use `labelled`."""
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
    """`1 - max p` under the name of Lewis & Gale (1994); for a single model it equals the variation ratio."""

    name = "least-confidence"


@dataclass
class Margin(_ByProbabilities):
    """`1 - (p₁ - p₂)` for the two likeliest classes (Scheffer et al., 2001); large where they are close."""

    name = "margin"

    @staticmethod
    def uncertainty(log_p: Tensor) -> Tensor:
        """In [0, 1]."""
        rest = _without(log_p, log_p.argmax(1)).exp()
        return rest.sum(1) + rest.amax(1)


def _without(log_p: Tensor, label: Tensor) -> Tensor:
    """The log-probabilities with those of the labels, [N], set to -inf."""
    return log_p.scatter(1, label[:, None], -torch.inf)
