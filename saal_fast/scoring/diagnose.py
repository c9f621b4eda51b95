"""Why a model cannot run a pool's first sample, or gives something else than logits for it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .._utils.failures import is_from_handler
from .._utils.notes import add_note
from ..engines import EngineError, Problem
from ..pools import Batch
from ..tasks import tensors_of

PLAIN = (RuntimeError, ValueError, IndexError, TypeError)
"""Classes whose errors are raised anew with a longer message; errors of all others get a note."""


def raise_diagnosed(problem: Problem, example: Batch, error: Exception) -> None:
    """Raises the model's error on a batch of one anew, of its own class, with what about the pool or the model causes it.

    It returns, after a note on what the model was given, where the cause is not known.
    """
    if isinstance(error, EngineError):  # which says it itself
        return
    cause = _signature(problem, example, error) if isinstance(error, TypeError) else ""
    cause = cause or _types(problem, example, error)
    if cause:
        raise TypeError(cause) from error
    cause = cause_in_shape(problem, example)
    if cause and type(error) in PLAIN:
        raise type(error)(f"{error}\n{cause}") from error
    add_note(error, cause or f"{_name(problem)} was given the pool's first sample as {_describe(example)}")


def cause_in_shape(problem: Problem, example: Batch, output: Any = None) -> str:
    """What to say of a model that fails on a batch of one, or gives an `output` that the task does not take."""
    return _needs_two(problem, example, output) or _is_batch(problem, example)


def _needs_two(problem: Problem, example: Batch, output: Any) -> str:
    """What to say of a model that drops the dimension of a batch of one: it runs two samples otherwise than one.

    Args:
        problem: what is scored.
        example: a batch of one.
        output: what the model made of it; None where it failed.
    """
    one = [] if output is None else tensors_of(output)
    two = _output(problem, example.map(lambda t: t.repeat_interleave(2, 0), size=2))
    both = [] if two is None else tensors_of(two)
    if not both or any(t.ndim == 0 or t.shape[0] != 2 for t in both):
        return ""
    if output is not None and all(a.ndim == b.ndim and a.shape[0] == 1 for a, b in zip(one, both, strict=False)):
        return ""
    got = "fails" if output is None else f"gives {list(one[0].shape)}"
    return (
        f"{_name(problem)} {got} for one sample and gives {list(both[0].shape)} for two, but samples go in one at a time: a "
        ".squeeze() without a dimension drops the batch's; name the dimension, as in .squeeze(-1), or take .flatten(1)"
    )


def _signature(problem: Problem, example: Batch, error: TypeError) -> str:
    """What to say where the inputs are not those of the model's forward."""
    try:
        forward = inspect.signature(problem.model.forward)
        forward.bind(*example.args, **example.kwargs)
    except ValueError:  # a function that does not tell its signature
        return ""
    except TypeError:
        names = [n for n, p in forward.parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    else:
        return ""
    stray = sorted(set(example.kwargs) - set(names))
    accepts = f"expected a pool of the inputs of {_name(problem)}.forward, which takes {', '.join(names) or 'none by name'}"
    if stray:
        return (
            f"{accepts}; got {', '.join(map(repr, stray))} beside or instead. Leave these columns out "
            f"of the samples, or rename them (of a Hugging Face Dataset: remove_columns({stray}) or rename_column): {error}"
        )
    got = f"{len(example.args)} by position" if example.args else ", ".join(example.kwargs)
    return f"{accepts}; got {got}. A sample is (input, label), ((input, input), label) or a mapping: {error}"


def _types(problem: Problem, example: Batch, error: Exception) -> str:
    """What to say where a model fails because the pool holds numbers of another type than its weights."""
    mine = {p.dtype for p in problem.params.values()}
    theirs = {t.dtype for t in example.tensors}
    if not isinstance(error, RuntimeError) or "type" not in str(error) or theirs & mine:
        return ""
    got, expected = (", ".join(sorted(map(str, types))) for types in (theirs, mine))
    scaled = ", scaled as in training" if "uint8" in got else ""
    return (
        f"expected a pool of the model's type, {expected}, got {got}: {error}. x.to({expected}) makes a sample of that type"
        f"{scaled}"
    )


def _is_batch(problem: Problem, example: Batch) -> str:
    """What to say where each sample of the pool is a batch by itself."""
    sizes = {t.shape[1] if t.ndim > 1 else 0 for t in example.tensors}
    if len(sizes) != 1 or 0 in sizes:
        return ""
    (size,) = sizes
    output = _output(problem, example.map(lambda t: t[0], size=size))
    found = [] if output is None else tensors_of(output)
    if not found or any(t.ndim == 0 or t.shape[0] != size for t in found):
        return ""
    return (
        f"sample 0 of the pool looks like a batch of {size} samples by itself, as {_name(problem)} takes it; "
        "DataLoader(pool, batch_size=None) says that a pool yields batches"
    )


def _output(problem: Problem, batch: Batch) -> Any:
    """The model's output, None where it fails."""
    try:
        return problem.output(problem.recorded(), batch)
    except Exception as error:  # a guess that does not hold: the error that is being explained is raised in any case
        if is_from_handler(error):
            raise
        return None


def _name(problem: Problem) -> str:
    return type(problem.model).__name__


def _describe(example: Batch) -> str:
    named: Mapping[Any, Any] = {**dict(enumerate(example.args)), **example.kwargs}
    parts = [f"{key}: {list(t.shape)} {t.dtype}" for key, t in named.items() if isinstance(t, Tensor)]
    return ", ".join(parts).replace("torch.", "")
