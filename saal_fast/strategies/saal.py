"""SAAL, the paper's own: the largest loss under the worst push of the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from .. import perturbation
from ..engines import NAMES
from ..scoring import Options
from ..selection import select_scored
from .base import Selection, TrainsNothing, check_batch_size, check_on_nonfinite, or_fresh


@dataclass
class SAAL(TrainsNothing):
    """Sharpness-aware active learning (Algorithm 1, Eq. 6).

    Args:
        rho: radius ρ of the ball the weights are pushed in.
        objective: "max" for the perturbed loss, "diff" for perturbed minus plain loss.
        diversity: None for the k largest (Algorithm 1), or "kmeans++" over the scores (Section 4.1; the published code's
            default), or "badge" as `saal_fast.select` has it.
        norm: p of the ball's norm.
        adaptive: the published code's step, which scales with the weights.
        options: further ones of `saal_fast.score`: engine, params, task, batch_size, on_nonfinite, ...
    """

    rho: float = 0.05
    objective: Literal["max", "diff"] = "max"
    diversity: Literal["kmeans++", "badge"] | None = None
    norm: float = 2
    adaptive: bool = False
    options: Options = field(default_factory=Options)
    name: ClassVar[str] = "saal"

    def __post_init__(self) -> None:
        """Refuses what could not be scored, before a model is trained for it.

        Raises:
            TypeError: a number is none, or an option is none of score's or an argument of SAAL itself.
            ValueError: an argument is out of range, or a name unknown.
        """
        perturbation.make(self.rho, self.norm, self.adaptive)
        for name, value, known in (
            ("objective", self.objective, ("max", "diff")),
            ("diversity", self.diversity, (None, "kmeans++", "badge")),
            ("engine", self.options.get("engine", "auto"), ("auto", *NAMES)),
        ):
            if value not in known:
                raise ValueError(f"expected {name} to be one of {', '.join(map(repr, known))}; got {value!r}")
        unknown = sorted(set(self.options) - set(Options.__annotations__))
        if unknown:
            known_options = ", ".join(sorted(Options.__annotations__))
            raise TypeError(f"expected options of saal_fast.score, among {known_options}; got {', '.join(unknown)}")
        check_batch_size(self.options.get("batch_size", "auto"))
        check_on_nonfinite(self.options.get("on_nonfinite", "raise"))
        mine = {"norm", "adaptive", "objective"} & set(self.options)
        if mine:
            raise TypeError(f"expected {', '.join(sorted(mine))} as SAAL's own argument, got it in options")

    def select(
        self,
        model: nn.Module,
        pool: Any,
        k: int,
        *,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """As `Strategy.select`, and raises as `saal_fast.select` does; draws for "kmeans++" only. `labelled` is not used."""
        options: Options = {
            **self.options,
            "norm": self.norm,
            "adaptive": self.adaptive,
            "objective": self.objective,
        }
        picks, scores = select_scored(
            model, pool, k, self.rho, diversity=self.diversity, seed=or_fresh(generator), **options
        )
        return Selection(picks, scores.float())
