"""What a demonstration can be asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..._utils.paths import home_of

if TYPE_CHECKING:
    from ..datasets import DataName


@dataclass(frozen=True)
class Settings:
    """The choices of one demonstration; the defaults follow the paper's §4.1 where it says.

    Attributes:
        data: the data set, as `saal_fast.experiments.datasets.load` names it.
        data_root: the folder it lies in, if not a usual one.
        labels: how many labelled samples to train on, drawn evenly from the classes.
        pool: how many unlabelled samples to score; None for 2,000, or as many as the data hold.
        k: how many samples to pick.
        rho: the radius of the perturbation, in the units of the weights.
        seed: of every draw and of the training, in [0, 2⁶³). The same seed gives the same picks on one machine
            with one number of threads.
        diversity: None for the k highest scores, "kmeans++" for k-means++ seeding over the scores, "badge" for the same
            over the last layer's gradients.
        out: the folder to write into, made if need be.
        epochs: passes over the labelled samples.
        reference_samples: how many samples of the pool the one-sample reference scores too.
    """

    data: DataName = "auto"
    data_root: Path | None = None
    labels: int = 100
    pool: int | None = None
    k: int = 10
    rho: float = 0.05
    seed: int = 0
    diversity: Literal["kmeans++", "badge"] | None = None
    out: Path = Path("saal-fast-demo")
    epochs: int = 50
    reference_samples: int = 64

    def __post_init__(self) -> None:
        """Refuse what no data set could serve, and find the user's home where `out` names it by ~.

        Raises:
            ValueError: a count below 1, a `rho` that is negative or not finite, a `seed` out of range, or an
                unknown `diversity`.
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
        if self.diversity not in {None, "kmeans++", "badge"}:
            raise ValueError(f"diversity is {self.diversity!r}: expected 'kmeans++', 'badge' or None")
