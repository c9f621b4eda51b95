"""What self-checks have found, remembered for a model object and its options."""

from __future__ import annotations

import weakref
from typing import Any

from torch import nn

from ..engines import Problem
from ..pools import Batch
from .options import ScoreOptions

_known: dict[int, tuple[weakref.ref[nn.Module], dict[Any, str]]] = {}
"""By the model's id, since a module may be unhashable; an entry goes with its model."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def verdicts_of(model: nn.Module) -> dict[Any, str]:
    """The verdicts on a model object, by `key_of`."""
    number = id(model)
    known = _known.get(number)
    if known is None or known[0]() is not model:
        known = _known[number] = (weakref.ref(model, lambda _: _known.pop(number, None)), {})
    return known[1]


def key_of(problem: Problem, options: ScoreOptions, example: Batch) -> tuple[Any, ...]:
    """What a verdict holds for: options, kinds of inputs, and how the model is built; not the values of its weights."""
    model = problem.model
    built = tuple(
        (name, type(m), tuple(id(hook) for kind in _HOOKS for hook in vars(m).get(kind, {}).values()))
        for name, m in model.named_modules()
    )
    weights = tuple((n, p.requires_grad, n in problem.params, p.shape, p.dtype) for n, p in model.named_parameters())
    inputs = (tuple((t.ndim, t.dtype) for t in example.tensors), tuple(example.kwargs))
    passes = (problem.rule, type(problem.task), problem.precision, problem.device, problem.embeddings)
    return (options.engine, options.labels is None, passes, inputs, weights, built)
