"""The settings of the demonstration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..._utils.paths import home_of
from ...selection import Diversity

if TYPE_CHECKING:
    from ..datasets import DataName


@dataclass(frozen=True)
class Settings:
    """The settings of one demonstration; the defaults are the paper's where Section 4.1 gives them.

    Attributes:
        data: name of the data set, as for `saal_fast.experiments.datasets.load`.
        data_root: folder of the data set; None for the usual ones.
        labels: number of labelled samples to train on, balanced over the classes.
        pool: number of unlabelled samples to score; None for 2,000, or for all if there are fewer.
        k: number of samples to pick.
        rho: radius of the perturbation, in the units of the weights.
        seed: seed of every draw and of the training, in [0, 2⁶³). The same seed gives the same picks on one machine with
            one number of threads.
        diversity: None picks the k highest scores, "kmeans++" draws by k-means++ seeding over the scores, "badge" by
            k-means++ seeding over the last layer's gradients.
        out: folder to write into; it is created if need be.
        epochs: passes over the labelled samples.
        reference_samples: number of the pool's samples that the reference engine scores too.
    """

    data: DataName = "auto"
    data_root: Path | None = None
    labels: int = 100
    pool: int | None = None
    k: int = 10
    rho: float = 0.05
    seed: int = 0
    diversity: Diversity | None = None
    out: Path = Path("saal-fast-demo")
    epochs: int = 50
    reference_samples: int = 64

    def __post_init__(self) -> None:
        """Checks the settings, and expands a leading ~ of `out`.

        Raises:
            ValueError: a count is below 1, `rho` is negative or not finite, `seed` is out of range, or `diversity` is
                unknown.
        """
        object.__setattr__(self, "out", home_of(self.out))
        for name in ("labels", "pool", "k", "epochs", "reference_samples"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}: expected at least 1")
        if not 0 <= self.rho < math.inf:
            raise ValueError(f"rho is {self.rho}: expected a finite number >= 0")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}: expected 0 to 2⁶³ - 1")
        names = get_args(Diversity)
        if self.diversity not in (None, *names):
            raise ValueError(f"diversity is {self.diversity!r}: expected {', '.join(map(repr, names))} or None")
