"""The check of a model, its task and its labels on one sample, before a pool is scored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._utils.logs import warn_once
from ..engines import Problem
from ..engines.backward import has_own_code, nodes_behind
from ..engines.problem import constant
from ..engines.study import look_again, recompute, study
from ..pools import Batch
from ..tasks import ChecksLabels, Classification
from .diagnose import PLAIN, cause_in_shape, raise_diagnosed
from .known import Known
from .probabilities import are_probabilities


class Checked(NamedTuple):
    """What the first sample shows.

    Attributes:
        problem: with the model's habits (`engines/habits.py`).
        probable: whether a classifier's output looks like probabilities, not logits.
    """

    problem: Problem
    probable: bool


def check_task(problem: Problem, example: Batch, labels: Any, known: Known | None = None) -> Checked:
    """Runs the model once on one sample: the task must understand its output, the labels fit, the loss have a gradient.

    Args:
        problem: what is scored.
        example: a batch of one.
        labels: those given for the whole pool; None where pseudo-labels count.
        known: what earlier calls have found, which needs no second look; it takes what this one finds.
    """
    task = problem.task
    studied = None if known is None else known.studied(problem)
    with torch.enable_grad():
        try:
            look = study(problem, example) if studied is None else look_again(studied, example)
        except Exception as error:
            raise_diagnosed(problem, example, error)
            raise
        problem, params, output = look.problem, look.params, look.output
        try:
            if look.last is not None:
                look.last.check(output)
            if labels is not None and isinstance(task, ChecksLabels):
                task.check_labels(labels, output)
            loss = task.loss(output, constant(task.pseudo_label(output)))
        except PLAIN as error:
            cause = cause_in_shape(problem, example, output)
            if cause and type(error) in PLAIN:
                raise type(error)(f"{error}\n{cause}") from error
            raise
    if not isinstance(loss, Tensor) or loss.shape != (1,) or not loss.is_floating_point():
        got = f"{loss.dtype} {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        cause = cause_in_shape(problem, example, output)
        raise ValueError(
            f"expected {type(task).__name__}.loss to give one number a sample, [1] for a batch of one; got {got} "
            f'(is it averaged? losses of torch.nn.functional need reduction="none"){cause and chr(10) + cause}'
        )
    probable = isinstance(task, Classification) and are_probabilities(output)
    nodes = nodes_behind(loss)
    if type(task) is not Classification and has_own_code(nodes):
        problem = replace(problem, habits=replace(problem.habits, own_backward=True))
    if known is not None and studied is not None:
        return Checked(problem, known.probable)
    leaves = {id(getattr(node, "variable", None)) for node in nodes}
    unreached = {name for name, p in params.items() if id(p) not in leaves}
    if unreached:
        with torch.enable_grad():
            if recompute(problem, example, output, unreached):
                return Checked(study(problem, example).problem, probable)
    if len(unreached) == len(params):
        warn_once(
            type(problem.model).__qualname__,
            "the first sample's loss does not depend on the parameters to perturb, so that its score is its plain loss: is "
            f"{type(problem.model).__name__} run under no_grad, or its output detached, or does it not use the parameters "
            "that params= accepts?",
        )
    if known is not None:
        known.remember(problem, probable)
    return Checked(problem, probable)
