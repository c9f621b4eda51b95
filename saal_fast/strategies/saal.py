"""SAAL, the paper's own strategy: the largest loss under the worst perturbation of the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from .._utils.rng import ensure_generator
from ..scoring import Objective, Options, ScoreOptions
from ..selection import Diversity, check_diversity, select_scored
from .protocol import Selection, WithoutTraining


@dataclass
class SAAL(WithoutTraining):
    """Sharpness-aware active learning (Algorithm 1, Eq. 6).

    Args:
        rho: radius ρ of the ball of perturbations.
        objective: "max" for the perturbed loss, "diff" for perturbed minus plain loss.
        diversity: None for the k largest (Algorithm 1), "kmeans++" over the scores (Section 4.1; the published code's
            default), or "badge" as in `saal_fast.select`.
        norm: p of the ball's norm.
        adaptive: whether to take the published code's step, which scales with the weights.
        options: further options of `saal_fast.score`: engine, params, task, batch_size, on_nonfinite, ...
    """

    rho: float = 0.05
    objective: Objective = "max"
    diversity: Diversity | None = None
    norm: float = 2
    adaptive: bool = False
    options: Options = field(default_factory=Options)
    name: ClassVar[str] = "saal"

    def __post_init__(self) -> None:
        """Checks the arguments, so that a mistake shows before a model is trained.

        Raises:
            TypeError: a number is of another type, or an option is unknown to `score` or an argument of SAAL itself.
            ValueError: an argument is out of range, or a name is unknown.
        """
        mine = {"norm", "adaptive", "objective"} & set(self.options)
        if mine:
            raise TypeError(f"expected {', '.join(sorted(mine))} as SAAL's own argument, got it in options")
        check_diversity(self.diversity, ScoreOptions.of(self.rho, self._score_options()))

    def _score_options(self) -> Options:
        return {**self.options, "norm": self.norm, "adaptive": self.adaptive, "objective": self.objective}

    def select(
        self,
        model: nn.Module,
        pool: Any,
        k: int,
        *,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """As `Strategy.select`, with the errors of `saal_fast.select`; draws for a diversity only, ignores `labelled`."""
        seed = ensure_generator(generator)
        picks, scores = select_scored(model, pool, k, self.rho, diversity=self.diversity, seed=seed, **self._score_options())
        return Selection(picks, scores.float())
