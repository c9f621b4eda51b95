"""Finds a model's habits (`habits.py`) by running it on the pool's first sample, in the pass that checks the task too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .._utils.failures import is_from_handler
from ..models import memory
from ..pools import Batch
from ..tasks import tensors_of
from .backward import has_own_code, nodes_behind
from .draws import Draws, own_generators
from .habits import MemoryWatch, SlowPaths
from .kept import Kept
from .last_layer import LastLinear
from .problem import Problem, constant

MAX_TRIALS = 64
"""Modules that are tried one by one for what they keep of their parameters."""


@dataclass(frozen=True)
class FirstLook:
    """A pass over the pool's first sample.

    Attributes:
        problem: with the model's habits.
        params: copies of the parameters, that require gradients; the output's graph leads to them.
        output: the model's.
        last: the last linear layer, where asked for.
        written: storages that were written into.
    """

    problem: Problem
    params: dict[str, Tensor]
    output: Any
    last: LastLinear | None
    written: frozenset[int] = frozenset()


def study(problem: Problem, example: Batch) -> FirstLook:
    """Runs the model on one sample, with copies of its parameters, until nothing is read past them.

    What reads the memory of the parameters themselves has reached them past the modules' attributes. First they are
    replaced where they are a call's arguments; what is read even then is left to the reference, which moves the real ones.

    Args:
        problem: what is scored.
        example: a batch of one.
    """
    kept, draws = Kept.of(problem.model), Draws(own_generators(problem.model), problem.device)
    try:
        look, read = _look(problem, example)
    finally:
        changed = kept.restore()
    habits = replace(look.problem.habits, keeps=changed, draws=draws.moved())
    if look.written and not habits.draws and not read:
        habits = replace(habits, writes=_writes(replace(problem, habits=habits), example, look))
    if read:
        habits = replace(habits, stand_ins=True)
        look, read = _look(replace(problem, habits=habits), example)
        habits = replace(habits, stand_ins=not read, aliased=tuple(sorted(read)))
        if read:
            changed_problem = replace(problem, habits=habits)
            params = changed_problem.own_parameters()
            with SlowPaths(), problem.watch_last_layer() as last:
                look = FirstLook(changed_problem, params, changed_problem.output(params, example), last)
    return replace(look, problem=replace(problem, habits=habits))


def look_again(problem: Problem, example: Batch) -> FirstLook:
    """A plain pass over one sample of a problem whose model's habits are known."""
    params = problem.recorded()
    with SlowPaths(), problem.watch_last_layer() as last:
        output = problem.output(params, example)
    return FirstLook(problem, params, output, last)


def _writes(problem: Problem, example: Batch, first: FirstLook) -> tuple[str, ...]:
    """Buffers that a pass writes into, and that it reaches as its modules' attributes alone.

    Args:
        problem: with what a pass changes.
        example: a batch of one.
        first: a pass that wrote into the buffers themselves.
    """
    model = problem.model
    users = Counter(t.untyped_storage()._cdata for t in (*Kept.of(model).tensors(), *model.parameters()))
    written = {storage for storage in first.written if users[storage] == 1}
    names = tuple(n for n, b in model.named_buffers() if b.untyped_storage()._cdata in written)
    if not names:
        return ()
    kept = Kept.of(model)
    look, _ = _look(replace(problem, habits=replace(problem.habits, writes=names)), example)
    kept.restore()
    return () if look.written & written or not _same_outputs(look.output, first.output) else names


def recompute(problem: Problem, example: Batch, output: Any, unreached: set[str]) -> Problem:
    """Has modules compute anew what they have kept of their parameters since eval mode was set (attention biases, say).

    A module with a parameter that no gradient reaches is tried in training mode by itself (not its children), without the
    tensors in its containers, and without its tensor attributes: where the output stays what it is and a gradient then
    reaches the parameter, the module stays so. Who calls this puts the modules back.

    Args:
        problem: what is scored.
        example: a batch of one.
        output: the model's, on the example.
        unreached: names of parameters without a gradient.
    """
    owners = {name: m for name, m in problem.model.named_modules() if not type(m).__module__.startswith("torch.nn.")}
    lacking = [n for n in owners if any(p.startswith(f"{n}." if n else "") for p in unreached)]
    mended = False
    for name in sorted(lacking, key=len, reverse=True)[:MAX_TRIALS]:
        for trial in _trials(owners[name]):
            below = {p for p in unreached if p.startswith(f"{name}." if name else "")}
            if not below:
                break
            with _undone(owners[name]) as keep:
                trial()
                reached = _reached(problem, example, output, below)
                if reached:
                    keep()
                    unreached, mended = unreached - reached, True
    return study(problem, example).problem if mended else problem


def _look(problem: Problem, example: Batch) -> tuple[FirstLook, set[str]]:
    """A pass with copies of the parameters, and which of the parameters themselves it read."""
    read: set[str] = set()
    own = {n: p for n, p in problem.model.named_parameters() if n in problem.params}
    params = {name: p.detach().clone().requires_grad_() for name, p in problem.params.items()}
    with MemoryWatch(own, read.update) as watch, SlowPaths() as paths, problem.watch_last_layer() as last:
        output = problem.output(params, example)
    # torch's script interpreter hides from a dispatch mode what it has optimised, but not from the graph; a parameter in it
    # whose copy is not belongs to something kept (`recompute`)
    nodes = {node for t in tensors_of(output) for node in nodes_behind(t)}
    leaves = {id(getattr(node, "variable", None)) for node in nodes}
    own_backward = problem.habits.own_backward or paths.hooked or has_own_code(nodes)
    habits = replace(
        problem.habits,
        inference=problem.habits.inference or paths.inference,
        own_backward=own_backward,
        sees_nodes=any(_has_old_hooks(module) for module in problem.model.modules()),
        differentiates=paths.differentiates,
    )
    problem = replace(problem, habits=habits)
    read |= {n for n, p in own.items() if {id(p), id(params[n])} <= leaves}
    return FirstLook(problem, params, output, last, frozenset(watch.written)), read


def _has_old_hooks(module: nn.Module) -> bool:
    """Whether it has hooks of `register_backward_hook`."""
    return getattr(module, "_is_full_backward_hook", None) is False and bool(module._backward_hooks)


def _trials(module: nn.Module) -> Iterator[Callable[[], None]]:
    """What may make a module compute anew: training mode, an emptied container, an attribute without its tensor."""
    if hasattr(module, "training"):
        yield lambda: setattr(module, "training", True)
    for name, value in list(vars(module).items()):
        if isinstance(value, dict | list) and name not in ("_parameters", "_buffers", "_modules") and _has_tensors(value):
            yield value.clear
        elif isinstance(value, Tensor):
            yield partial(setattr, module, name, None)
            yield partial(delattr, module, name)


def _has_tensors(value: Any) -> bool:
    return any(isinstance(t, Tensor) for t in tree_leaves(value))


@contextmanager
def _undone(module: nn.Module) -> Iterator[Callable[[], None]]:
    """Puts the module's attributes back on leaving, unless told to keep them."""
    kept, keeps = Kept.of(module), []
    try:
        yield lambda: keeps.append(True)
    finally:
        if not keeps:
            kept.restore()


def _reached(problem: Problem, example: Batch, output: Any, names: set[str]) -> set[str]:
    """The parameters that a gradient reaches now, where the output is the same; else none."""
    kept = Kept.of(problem.model)
    try:
        look, _ = _look(problem, example)
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:  # the module needs what the trial took from it
        if memory.exhausted(error) or is_from_handler(error):
            raise
        return set()
    finally:
        kept.restore()
    if not _same_outputs(look.output, output):
        return set()
    # not by the outputs' sum: outputs that no loss is taken of may have no gradient
    loss = problem.task.loss(look.output, constant(problem.task.pseudo_label(look.output)))
    if not loss.requires_grad:
        return set()
    with look.problem.until_backward(look.params):
        found = torch.autograd.grad(loss, [look.params[n] for n in names], allow_unused=True)
    return {name for name, g in zip(names, found, strict=True) if g is not None}


def _same_outputs(now: Any, before: Any) -> bool:
    """Whether two outputs are the same, rounding aside."""
    a, b = tensors_of(now), tensors_of(before)
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x, y, 1e-4, 1e-5) for x, y in zip(a, b, strict=True)
    )
