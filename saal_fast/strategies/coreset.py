"""Coreset: samples such that every sample of the pool is near one that is labelled (Sener & Savarese, arXiv:1708.00489)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._utils.rng import ensure_generator
from ..models.features import BatchSize, is_empty, penultimate
from .choice import candidates, check_options, check_request
from .protocol import OnNonFinite, Selection, WithoutTraining

CENTRES_AT_ONCE = 4096
"""Labelled samples whose distances to the pool are in memory at once."""


@dataclass
class Coreset(WithoutTraining):
    """Chooses k centres among the features so that the farthest sample lies as near to a labelled one as possible.

    By default it is greedy: it takes again and again the sample farthest from all labelled and chosen ones, and reaches at
    most twice the best radius (their Algorithm 1). `robust=True` solves the mixed integer programme, which may leave some
    outliers uncovered (their Algorithm 2); it suits small pools and needs scipy.

    The scores are the distances to the nearest labelled sample before the choice; NaN where nothing is labelled.

    Args:
        layer: the layer whose input is the features; None for the last `nn.Linear`.
        robust: whether to solve the mixed integer programme after the greedy choice.
        outliers: share of the pool that the robust cover may leave out (1e-4 in their paper).
        time_limit: seconds for all programmes together; after them the best cover so far is taken, and a warning logged.
        batch_size: samples per batch, or "auto".
        on_nonfinite: "raise" for an error where features or outputs hold NaN or inf, or "keep" to pass these samples over.
    """

    layer: str | None = None
    robust: bool = False
    outliers: float = 1e-4
    time_limit: float = 60.0
    batch_size: BatchSize = "auto"
    on_nonfinite: OnNonFinite = "raise"
    name: ClassVar[str] = "coreset"

    def __post_init__(self) -> None:
        check_options(self.batch_size, self.on_nonfinite)
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
        """As `Strategy.select`. Where nothing is labelled, the first centre is drawn uniformly.

        Raises:
            ImportError: `robust` without scipy; `pip install 'saal-fast[coreset]'`.
        """
        check_request(k, pool, generator)
        if self.robust:
            from . import cover  # noqa: PLC0415 - scipy is optional; without it this raises before any work is done

            cover.check()
        found = penultimate(model, pool, layer=self.layer, batch_size=self.batch_size)
        good = candidates(found.finite, k, self.on_nonfinite)
        points = found.features[good].double()
        distance = self._to_labelled(model, points, labelled)
        scores = torch.full((len(found.features),), torch.nan, dtype=torch.float32, device="cpu")
        if distance.isfinite().all():
            scores[good] = distance.float()
        picks = greedy(points, k, distance, ensure_generator(generator))
        if self.robust:
            picks = cover.robust(points, k, distance, picks, self.outliers, self.time_limit)
        return Selection(good[picks], scores)

    def _to_labelled(self, model: nn.Module, points: Tensor, labelled: Any | None) -> Tensor:
        """Distance of each point to the nearest labelled sample, inf where nothing is labelled; [M]."""
        nothing = torch.full((len(points),), torch.inf, dtype=torch.float64, device="cpu")
        if labelled is None or is_empty(model, labelled):
            return nothing
        found = penultimate(model, labelled, layer=self.layer, batch_size=self.batch_size)
        good = candidates(found.finite, 0, self.on_nonfinite)
        return nearest(points, found.features[good].double())


def nearest(points: Tensor, centres: Tensor, at_once: int = CENTRES_AT_ONCE) -> Tensor:
    """Distance of each point [N, d] to the nearest of M centres [M, d], inf for M = 0; float64 [N].

    Computed by matrix products in float64 of points whose mean is subtracted; accurate to about 1e-8 of the largest norm.
    """
    middle = points.mean(0)
    x, best = points - middle, torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
    for part in torch.split(centres - middle, at_once):
        best = torch.minimum(best, torch.cdist(x, part, compute_mode="use_mm_for_euclid_dist").amin(1))
    return best


def greedy(points: Tensor, k: int, distance: Tensor, generator: torch.Generator) -> Tensor:
    """Chooses k centres greedily: each is the farthest from all before it, of equally far points the first.

    Args:
        points: float64 [N, d].
        k: number of centres; k <= N.
        distance: distance of each point to the nearest centre there is already; inf everywhere if there is none, and then
            the first is drawn uniformly; [N].
        generator: source of that draw.

    Returns:
        int64 [k], in the order chosen, all different.
    """
    distance = distance.clone()
    if bool(distance.isinf().all()):
        distance[torch.randint(len(points), (), generator=generator, device=generator.device)] = (
            torch.nan
        )  # which argmax takes first
    picks = []
    for _ in range(k):
        pick = int(distance.argmax())
        picks.append(pick)
        distance = torch.minimum(distance, (points - points[pick]).norm(dim=1))
        distance[picks] = -torch.inf
    return torch.tensor(picks, dtype=torch.int64, device="cpu")
