"""Outputs that are probabilities, which a model with a softmax at its end gives where logits are expected."""

from __future__ import annotations

from typing import Any

import torch

from .._utils.logs import warn_once
from ..engines import Problem
from ..pools import Batch
from ..tasks import class_logits

LOOKED_AT = 8
"""Samples of the first batch that are looked at, one by one."""


def are_probabilities(output: Any) -> bool:
    """Whether each row of a classifier's output holds numbers >= 0 that sum to 1."""
    z = class_logits(output).detach()
    return not z.is_meta and bool((z >= 0).all() and ((z.sum(1) - 1).abs() <= 1e-4).all())


@torch.no_grad()
def warn_of_probabilities(problem: Problem, batch: Batch) -> None:
    """Warns, once a model class, where the outputs of a batch's first samples are probabilities all of them."""
    n = min(batch.size, LOOKED_AT)
    if not all(are_probabilities(problem.output(problem.recorded(), batch.slice(i, i + 1))) for i in range(n)):
        return
    name = type(problem.model)
    rows = f"{n} samples" if n > 1 else "sample"
    warn_once(
        name.__qualname__,
        f"the outputs of {name.__name__} look like probabilities: those of the first {rows} are numbers >= 0 that sum "
        "to 1. score expects logits and takes the softmax itself, so that these scores are those of a softmax of a softmax: "
        "leave out the softmax at the model's end, or pass task= with a loss of probabilities",
    )
