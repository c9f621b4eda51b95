"""BADGE: k-means++ over the gradients of the last layer (Ash et al., arXiv:1906.03671).

The gradient of the pseudo-labelled cross-entropy by the last layer's weights is an outer product, `a ⊗ h` with the residual
`a = softmax(z) - onehot(ŷ)` [C] and the layer's input h [d]. It is kept so: C + d numbers a sample instead of C·d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..kmeans import kmeans_plusplus
from .base import OnNonFinite, Selection, TrainsNothing, candidates, check_count, check_on_nonfinite, or_fresh
from .features import BatchSize, Penultimate, last_layer, penultimate


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
        check_count(k, pool)
        found = penultimate(model, pool, layer=self.layer, batch_size=self.batch_size)
        self._check_layer(model, pool, found)
        good = candidates(found.finite, k, self.on_nonfinite)
        a, h = residuals(found.logits), found.features
        scores = torch.where(found.finite, a.double().norm(dim=1) * h.double().norm(dim=1), torch.nan)
        return Selection(good[_seed(a[good], h[good], k, or_fresh(generator))], scores.float())

    def _check_layer(self, model: nn.Module, pool: Any, found: Penultimate) -> None:
        """Raises where the layer is none that makes logits [C] of features [d]: its gradient would be no outer product."""
        name, layer = last_layer(model, pool, self.layer)
        shape = getattr(getattr(layer, "weight", None), "shape", None)
        expected = (found.logits.shape[1], found.features.shape[1])
        if shape != expected:
            got = "without a weight" if shape is None else f"of weight {list(shape)}"
            raise ValueError(
                f"expected the last layer to make the {expected[0]} logits of its {expected[1]} inputs by a weight "
                f"{list(expected)}, got {name!r}, a {type(layer).__name__} {got}; name another with layer="
            )


def residuals(logits: Tensor) -> Tensor:
    """`softmax(z) - onehot(argmax z)`: the cross-entropy's gradient by the logits, under the pseudo-label; [N, C].

    The pseudo-label's own entry is minus the sum of the others, and keeps its digits where the model is nearly certain.
    """
    label = logits.argmax(1, keepdim=True)
    others = logits.softmax(1).scatter(1, label, 0.0)
    return others.scatter(1, label, -others.sum(1, keepdim=True))


def _seed(a: Tensor, h: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Chooses k rows of the outer products a ⊗ h, by k-means++ from the largest on, without forming one."""
    pair: Any = (a, h)
    return kmeans_plusplus(pair, k, first="argmax", seed=generator)
