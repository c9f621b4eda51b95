"""What calls have found of a model object, remembered for further calls under the same options."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from .._utils.identity import ByObject
from ..engines import Problem
from ..engines.findings import Findings
from ..engines.habits import Habits
from ..models.structure import structure_of
from ..pools import Batch
from .options import ScoreOptions

MAX_KINDS = 32
"""Kinds of calls that are remembered for a model object."""


@dataclass
class Known:
    """What is known of a model object as it is built now, for calls of one kind.

    Attributes:
        verdict: what came of the self-check; None before it.
        habits: what `study` found, where it can be taken for granted in a further call.
        findings: plans and memory.
        probable: whether a classifier's output looks like probabilities.
    """

    verdict: str | None = None
    habits: Habits | None = None
    findings: Findings | None = None
    probable: bool = False

    def remember(self, problem: Problem, probable: bool) -> None:
        """Takes over what a first look has found; what a pass keeps or draws must be looked for in every call."""
        habits = problem.habits
        if not (habits.keeps or habits.draws or habits.aliased):
            self.habits, self.findings, self.probable = replace(habits, untouched=None), problem.findings, probable

    def studied(self, problem: Problem) -> Problem | None:
        """The problem with what is known; None where it has to be studied."""
        if self.habits is None or self.findings is None:
            return None
        return replace(problem, habits=self.habits, findings=self.findings)


_models: ByObject[OrderedDict[Any, Known]] = ByObject()
"""The kinds of calls of each model object, the latest last."""


def known_of(problem: Problem, options: ScoreOptions, example: Batch) -> Known:
    """What is known of a problem's model for these options and this kind of input."""
    calls = _models.get(problem.model)
    if calls is None:
        calls = _models.put(problem.model, OrderedDict())
    known = calls.setdefault(_key(problem, options, example), Known())
    if len(calls) > MAX_KINDS:
        calls.popitem(last=False)
    return known


def _key(problem: Problem, options: ScoreOptions, example: Batch) -> tuple[Any, ...]:
    inputs = (tuple((t.ndim, t.dtype) for t in example.tensors), tuple(example.kwargs))
    passes = (problem.rule, type(problem.task), problem.precision, problem.device, problem.embeddings)
    return (options.engine, options.labels is None, passes, inputs, tuple(problem.params), structure_of(problem.model))
