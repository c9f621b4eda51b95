"""Finds a model's habits (`habits.py`) by running it on the pool's first sample, in the pass that checks the task too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .._utils.failures import foreign_failure, is_from_handler
from ..models import memory
from ..models.held import held
from ..pools import Batch
from ..tasks import tensors_of
from .backward import behind, has_own_code
from .draws import Draws, own_generators
from .habits import MemoryWatch, SlowPaths
from .kept import Kept
from .last_layer import LastLinear
from .problem import KeptError, Problem, constant, standing_for

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
        read: the parameters that were read themselves, in place of their copies.
        stale: those that the output comes from by a graph that is older than the pass.
        written: storages that were written into.
    """

    problem: Problem
    params: dict[str, Tensor]
    output: Any
    last: LastLinear | None
    read: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()
    written: frozenset[int] = frozenset()


def study(problem: Problem, example: Batch) -> FirstLook:
    """Runs the model on one sample, with copies of its parameters, until nothing is read past them.

    What reads the memory of the parameters themselves has reached them past the modules' attributes. First they are
    replaced where they are a call's arguments; what is read even then is left to the reference, which moves the real ones.
    So is a model that does otherwise, or nothing at all, where other tensors stand in for its Parameter objects (it knows
    them by their `id`, asks for their class).

    Args:
        problem: what is scored.
        example: a batch of one.

    Raises:
        KeptError: the model keeps what one pass has computed from its weights, where nothing can empty it.
    """
    kept, draws = Kept.of(problem.model, objects=True), Draws(own_generators(problem.model), problem.device)
    try:
        look = _look(problem, example)
    except Exception as error:
        kept.restore()
        plain = None if memory.exhausted(error) or is_from_handler(error) else _plain_look(problem, example)
        if plain is None or foreign_failure(error, lambda: _look(problem, example)) is not None:
            raise
        changed = kept.restore()
        habits = replace(plain.problem.habits, keeps=changed, untouched=kept.of_modules(changed), own_backward=True)
        return replace(plain, problem=replace(problem, habits=habits))  # own_backward: which is not known
    changed = kept.restore()
    if look.stale:
        if recompute(problem, example, look.output, set(look.stale)):
            return study(problem, example)
        raise KeptError(_kept_elsewhere(problem, look.stale))
    habits = replace(look.problem.habits, keeps=changed, untouched=kept.of_modules(changed), draws=draws.moved())
    if look.written and not habits.draws and not look.read:
        habits = replace(habits, writes=_writes(replace(problem, habits=habits), example, look))
    if look.read:
        habits = replace(habits, stand_ins=True)
        look = _look(replace(problem, habits=habits), example)
        habits = replace(habits, stand_ins=not look.read, aliased=tuple(sorted(look.read)))
        if look.read:
            return _by_own_parameters(replace(problem, habits=habits), example)
    look = replace(look, problem=replace(problem, habits=habits))
    try:
        return look if habits.draws else _held_to_plain(look, example)
    finally:
        kept.restore()


def _held_to_plain(look: FirstLook, example: Batch) -> FirstLook:
    """The look itself where a plain pass of the model gives the same; else one by which its own parameters must move.

    Raises:
        KeptError: the plain pass has used what the other one computed from the parameters that stood in.
    """
    problem = look.problem
    plain = _plain_look(problem, example)
    if plain is None:
        return look
    own = {id(p): name for name, p in look.params.items()}
    met = {own[i] for i in _leaves(_nodes(plain.output)) if i in own}
    if met:
        raise KeptError(_kept_elsewhere(problem, met))
    if _same_outputs(plain.output, look.output) or not _same_outputs(_look(problem, example).output, look.output):
        return look  # in the latter case passes differ among themselves
    return plain


def _plain_look(problem: Problem, example: Batch) -> FirstLook | None:
    """A pass over one sample with the model's own parameters where they are; None where they can't be, or it fails too."""
    habits = replace(problem.habits, aliased=tuple(sorted(problem.params)), identified=True, stand_ins=False)
    plain = replace(problem, habits=habits)
    try:
        return _by_own_parameters(plain, example)
    except Exception as error:
        if memory.exhausted(error) or foreign_failure(error, lambda: _by_own_parameters(plain, example)) is not None:
            raise
        return None


def _by_own_parameters(problem: Problem, example: Batch) -> FirstLook:
    params = problem.own_parameters()
    with SlowPaths(), problem.watch_last_layer() as last:
        return FirstLook(problem, params, problem.output(params, example), last)


def _kept_elsewhere(problem: Problem, names: Iterable[str]) -> str:
    return (
        f"{type(problem.model).__name__} keeps what an earlier pass has computed from {', '.join(sorted(names)[:3])}, which "
        "would stay as it is where these weights move, in a place that can't be emptied (functools.cache, a closure, a "
        "global, a flag that says it is done). Keep it in an attribute of a module that is None, or a dict that is empty, "
        "until it is computed, and empty it before scoring"
    )


def look_again(problem: Problem, example: Batch) -> FirstLook:
    """A plain pass over one sample of a problem whose model's habits are known; a study where it changes anything."""
    kept, params = Kept.watched(problem.model), problem.recorded()
    with SlowPaths(), problem.watch_last_layer() as last:
        output = problem.output(params, example)
    if kept.touched() and kept.restore():
        return study(problem, example)
    return FirstLook(replace(problem, habits=replace(problem.habits, untouched=kept)), params, output, last)


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
    look = _look(replace(problem, habits=replace(problem.habits, writes=names)), example)
    kept.restore()
    return () if look.written & written or not _same_outputs(look.output, first.output) else names


def recompute(problem: Problem, example: Batch, output: Any, unreached: set[str]) -> bool:
    """Has modules compute anew what they have kept of their parameters since eval mode was set (attention biases, say).

    A module with a parameter that no gradient reaches is tried in training mode by itself (not its children), without the
    tensors in its containers, and without its tensor attributes: where the output stays what it is and a gradient then
    reaches the parameter, the module stays so. Who calls this puts the modules back.

    Args:
        problem: what is scored.
        example: a batch of one.
        output: the model's, on the example.
        unreached: names of parameters without a gradient, or with one by a graph of an earlier pass.

    Returns:
        Whether any module does so; the problem is to be studied anew.
    """
    owners = {name: m for name, m in problem.model.named_modules() if not type(m).__module__.startswith("torch.nn.")}
    lacking = [n for n, m in owners.items() if _keeps_graph(m) or any(p.startswith(f"{n}." if n else "") for p in unreached)]
    mended = False
    for name in sorted(lacking, key=len, reverse=True)[:MAX_TRIALS]:
        for trial in _trials(owners[name]):
            if not unreached:
                break
            with _undone(owners[name]) as keep:
                trial()
                reached = _reached(problem, example, output, unreached)
                if reached:
                    keep()
                    unreached, mended = unreached - reached, True
    return mended


def _look(problem: Problem, example: Batch) -> FirstLook:
    """A pass with copies of the parameters."""
    read: set[str] = set()
    own = {n: p for n, p in problem.model.named_parameters() if n in problem.params}
    params = {name: standing_for(name, p.detach().clone()) for name, p in problem.params.items()}
    begun = _sequence_number()
    with MemoryWatch(own, read.update) as watch, SlowPaths() as paths, problem.watch_last_layer() as last:
        output = problem.output(params, example)
    # torch's script interpreter hides from a dispatch mode what it has optimised, but not from the graph; a parameter in it
    # whose copy is not belongs to something kept (`recompute`)
    nodes = _nodes(output)
    leaves = _leaves(nodes)
    own_backward = problem.habits.own_backward or paths.hooked or has_own_code(nodes)
    habits = replace(
        problem.habits,
        inference=problem.habits.inference or paths.inference,
        own_backward=own_backward,
        sees_nodes=any(_has_old_hooks(module) for module in problem.model.modules()),
        differentiates=paths.differentiates,
    )
    old = _leaves(behind(node for node in nodes if begun > node._sequence_nr()))
    stale = {n for n, p in own.items() if id(p) in old}
    stale |= {t.stands_for for t in old.values() if hasattr(t, "stands_for") and params.get(t.stands_for) is not t}
    stale -= read
    read |= {n for n, p in own.items() if {id(p), id(params[n])} <= leaves.keys()} - stale
    problem = replace(problem, habits=habits)
    return FirstLook(problem, params, output, last, frozenset(read), frozenset(stale), frozenset(watch.written))


def _nodes(output: Any) -> set[Any]:
    return behind(t.grad_fn for t in tensors_of(output))


def _leaves(nodes: Iterable[Any]) -> dict[int, Any]:
    """The leaves among the nodes of a graph, by identity."""
    return {id(node.variable): node.variable for node in nodes if hasattr(node, "variable")}


def _sequence_number() -> int:
    """The number that autograd gives to the next node of its graph in this thread, roughly."""
    with torch.enable_grad():
        node: Any = torch.zeros((), device="cpu", requires_grad=True).exp().grad_fn
    return int(node._sequence_nr())


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
    for name in getattr(module, "_non_persistent_buffers_set", ()):
        yield partial(setattr, module, name, None)


def _has_tensors(value: Any) -> bool:
    return any(isinstance(t, Tensor) for t in tree_leaves(value))


def _keeps_graph(module: nn.Module) -> bool:
    return any(isinstance(t, Tensor) and t.grad_fn is not None for t in held(module))


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
        look = _look(problem, example)
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:  # the module needs what the trial took from it
        if memory.exhausted(error) or is_from_handler(error):
            raise
        return set()
    finally:
        kept.restore()
    if not _same_outputs(look.output, output):
        return set()
    names = names - look.stale
    # not by the outputs' sum: outputs that no loss is taken of may have no gradient
    loss = problem.task.loss(look.output, constant(problem.task.pseudo_label(look.output)))
    if not loss.requires_grad:
        return set()
    with look.problem.until_backward(look.params):
        found = torch.autograd.grad(loss, [look.params[n] for n in names], allow_unused=True) if names else ()
    return {name for name, g in zip(names, found, strict=True) if g is not None}


def _same_outputs(one: Any, other: Any) -> bool:
    pairs = list(zip_longest(tensors_of(one), tensors_of(other)))
    return all(
        a is not None and b is not None and a.shape == b.shape and torch.allclose(a, b, 1e-4, 1e-5, equal_nan=True)
        for a, b in pairs
    )
