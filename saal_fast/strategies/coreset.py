"""Coreset: samples such that every sample of the pool is near one that is labelled (Sener & Savarese, arXiv:1708.00489)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..models.features import BatchSize, is_empty, penultimate
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

ROWS = 4096
"""Rows of labelled features whose distances to the pool are held at once."""


@dataclass
class Coreset(TrainsNothing):
    """k centres over the features, so that the farthest sample is as near to a labelled one as can be.

    By default greedily: again and again the sample farthest from all that are labelled or chosen (at most twice the best
    radius; their Algorithm 1). With `robust=True` the mixed integer programme, which may leave some outliers uncovered
    (their Algorithm 2); for small pools, and it needs scipy.

    Scores are the distances to the nearest labelled sample, before anything is chosen; NaN where nothing is labelled.

    Args:
        layer: the layer whose input the features are; None for the last `nn.Linear`.
        robust: whether to solve the mixed integer programme after the greedy choice.
        outliers: share of the pool that the robust cover may leave out; theirs is 1e-4.
        time_limit: seconds for all programmes together; then the best cover so far is taken, and a warning logged.
        batch_size: samples at once, or "auto".
        on_nonfinite: "raise" where features or outputs hold NaN or inf, or "keep" these samples and never pick one.
    """

    layer: str | None = None
    robust: bool = False
    outliers: float = 1e-4
    time_limit: float = 60.0
    batch_size: BatchSize = "auto"
    on_nonfinite: OnNonFinite = "raise"
    name: ClassVar[str] = "coreset"

    def __post_init__(self) -> None:
        check_on_nonfinite(self.on_nonfinite)
        check_batch_size(self.batch_size)
        if not 0 <= self.outliers < 1:
            raise ValueError(f"expected outliers as a share of the pool in [0, 1), got {self.outliers}")
        if not self.time_limit > 0:
            raise ValueError(f"expected time_limit > 0 seconds, got {self.time_limit}")

    def select(
        self,
        model: nn.Module,
        pool: Any,
        k: int,
        *,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """As `Strategy.select`. Where nothing is labelled the first centre is drawn uniformly.

        Raises:
            ImportError: `robust` without scipy; `pip install 'saal-fast[coreset]'`.
        """
        check_request(k, pool, generator)
        if self.robust:
            from . import cover  # noqa: PLC0415 - scipy is optional, and its want shows before any work is done

            cover.check()
        found = penultimate(model, pool, layer=self.layer, batch_size=self.batch_size)
        good = candidates(found.finite, k, self.on_nonfinite)
        points = found.features[good].double()
        distance = self._to_labelled(model, points, labelled)
        scores = torch.full((len(found.features),), torch.nan)
        if distance.isfinite().all():
            scores[good] = distance.float()
        picks = greedy(points, k, distance, or_fresh(generator))
        if self.robust:
            picks = cover.robust(points, k, distance, picks, self.outliers, self.time_limit)
        return Selection(good[picks], scores)

    def _to_labelled(self, model: nn.Module, points: Tensor, labelled: Any | None) -> Tensor:
        """Distance of each point to the nearest labelled one, inf where there is none; [M]."""
        nothing = torch.full((len(points),), torch.inf, dtype=torch.float64)
        if labelled is None or is_empty(model, labelled):
            return nothing
        found = penultimate(model, labelled, layer=self.layer, batch_size=self.batch_size)
        good = candidates(found.finite, 0, self.on_nonfinite)
        return nearest(points, found.features[good].double())


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Distance of each point [N, d] to the nearest centre [M, d], inf for none; float64 [N].

    By matrix products in float64, after the points' mean is taken off: right to some 1e-8 of the largest norm.
    """
    middle = points.mean(0)
    x, best = points - middle, torch.full((len(points),), torch.inf, dtype=torch.float64)
    for part in torch.split(centres - middle, ROWS):
        best = torch.minimum(best, torch.cdist(x, part, compute_mode="use_mm_for_euclid_dist").amin(1))
    return best


def greedy(points: Tensor, k: int, distance: Tensor, generator: torch.Generator) -> Tensor:
    """The greedy k centres: each the farthest from all before it; of equals the first.

    Args:
        points: float64 [N, d].
        k: how many; k <= N.
        distance: of each point to the nearest centre there is already; inf everywhere where there is none: then the first
            is drawn uniformly; [N].
        generator: what to draw it from.

    Returns:
        int64 [k], in the order chosen, all different.
    """
    distance = distance.clone()
    if bool(distance.isinf().all()):
        distance[torch.randint(len(points), (), generator=generator)] = torch.nan  # which argmax takes first
    picks = []
    for _ in range(k):
        pick = int(distance.argmax())
        picks.append(pick)
        distance = torch.minimum(distance, (points - points[pick]).norm(dim=1))
        distance[picks] = -torch.inf
    return torch.tensor(picks, dtype=torch.int64)
