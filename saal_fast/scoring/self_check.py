"""The self-check of a call: one or two samples are scored a second way, and a difference that is no rounding is an error.

Numbers that differ by more than the type's rounding are taken again in float64 by both ways, and once more with a little noise on
weights and inputs. A difference by rounding vanishes in the first, one by ties (a ReLU at exactly 0, equal maxima in a pooling)
in the second. Labels are the engine's.
"""

from __future__ import annotations

import math
import random
import signal
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .._utils.logs import log, warn_once
from ..engines import EngineError, Problem, Result
from ..models import memory
from ..pools import Batch
from .options import EngineName, ScoreOptions
from .runner import Runner
from .second_way import Numbers, SecondWay, in_type

MakeRunner = Callable[[Problem, EngineName], Runner]

TOLERANCE = {  # (relative, absolute); of perturbed minus plain loss ten times the relative one, since digits cancel
    torch.float64: (1e-5, 1e-9),
    torch.float32: (1e-3, 1e-5),
    torch.float16: (2e-2, 1e-2),
    torch.bfloat16: (5e-2, 5e-2),
}
COARSE = (5e-2, 1e-3)
"""For what rounding in float32 can't explain at a point without ties, where a model doesn't run in float64."""
NOISE = 1e-3
"""Relative size of the noise that takes a model off its ties."""

COPIES = 6
"""Copies of the model's weights that the check holds at once, in the type it starts with: models, gradients and steps in float64."""

CAUSES = (
    "usual causes: weights reached past the module's attributes (a closure, a global), values computed from weights and kept "
    "from an earlier pass, code that asks torch.is_grad_enabled(), dropout or noise in eval mode, outputs of a sample that "
    "depend on the rest of its batch, an autograd function or a registered layer whose gradient is wrong"
)


class SelfCheckError(RuntimeError):
    """A sample's numbers differ from those that plain autograd gives; the message names the sample and both."""


class LeftOut(Exception):  # noqa: N818 - says what becomes of the check; not an error
    """The check can't be made, or can't be decided; the message says why."""


_known: dict[int, tuple[weakref.ref[nn.Module], dict[Any, str]]] = {}
"""Verdicts by model object and options, of models that are alive; by id, since a module may be unhashable."""


class SelfCheck:
    """Checks one call of `score`, unless the model object was checked under the same options before.

    Args:
        problem: what is scored, by a model that has not been run yet in this call.
        options: of the call.
        make_runner: makes the runner of a problem, as for the call itself.
        example: a batch of one.

    Attributes:
        verdict: what came of it; None while it is due, and where it is switched off.
        due: whether `see` has yet to be called.
    """

    def __init__(self, problem: Problem, options: ScoreOptions, make_runner: MakeRunner, example: Batch) -> None:
        self.problem, self.options, self.make_runner = problem, options, make_runner
        self.name = type(problem.model).__name__
        self.verdict: str | None = None
        self.due = False
        if options.check is False:
            return
        self.verdicts = _verdicts_of(problem.model)
        self.key = _key(problem, options, example)
        self.verdict = self.verdicts.get(self.key)
        if self.verdict is None:
            self.due = True
            with self._guarded():
                self._check_memory()
                self.way = SecondWay.of(problem)

    def see(self, batch: Batch, result: Result) -> None:
        """Checks the first finite sample of a batch, and the one with the largest gradient.

        Args:
            batch: what was scored first.
            result: of its first samples, or of all.

        Raises:
            SelfCheckError: the numbers of a sample differ, and options.check is "raise".
        """
        if not self.due:
            return
        with self._guarded():
            rows = _rows(result)
            for row in rows:
                sample = batch.slice(row, row + 1).with_labels(_label(result, row))
                found = Numbers(*(float(t[row]) for t in (result.loss, result.grad_norm, result.perturbed_loss)))
                self._check(sample, found)
            self._name_unreached()
            self.verdict = f"agreed on {_samples(batch.start + row for row in rows)}"
        del self.way

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turns what goes wrong within into a verdict; leaves random number generators as they are."""
        try:
            with _generators_kept(self.problem.device):
                yield
        except SelfCheckError as error:
            if self.options.check == "raise":
                raise
            self.verdict = f"differed: {error}"
            warn_once(type(self.problem.model).__qualname__, str(error))
        except LeftOut as reason:
            self._leave_out(str(reason))
        except Exception as error:
            if _comes_from_outside(error):
                raise
            self._leave_out(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        self.due = self.verdict is None
        if self.verdict is not None:
            self.verdicts[self.key] = self.verdict

    def _leave_out(self, reason: str) -> None:
        self.verdict = f"left out: {reason}"
        warn_once(type(self.problem.model).__qualname__, f"the self-check of {self.name} was left out: {reason}")

    def _check_memory(self) -> None:
        state = [*self.problem.model.parameters(), *self.problem.model.buffers()]
        if any(t.is_meta for t in state):
            raise LeftOut("its weights are on the device meta, without values")
        needed, free = COPIES * memory.nbytes(state), memory.free(self.problem.device)
        if free is not None and needed > free:
            raise LeftOut(f"copies of the model take {needed >> 20:,} MiB, of which {free >> 20:,} MiB are free")

    def _check(self, sample: Batch, found: Numbers) -> None:
        """Checks a batch of one with its label, for which the engine found these numbers.

        Raises:
            SelfCheckError: they are wrong.
            LeftOut: that can't be decided.
        """
        own = next(iter(self.problem.params.values())).dtype
        plain = None
        if self.problem.precision is None:
            plain = self._numbers(sample)
            if self.way.past:  # the user's own weights, which a copy's code reaches too: they are not moved
                if _close(found._replace(perturbed_loss=0.0), plain._replace(perturbed_loss=0.0), TOLERANCE[own]):
                    return
                raise self._error(sample, found, plain, f"in {own}")
            if _close(found, plain, TOLERANCE[own]):
                return
            log.info("sample %d differs in %s: %s by the engine, %s", sample.start, own, found, plain)
        if self.way.varies(sample, lambda a, b: math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)):
            raise LeftOut("two passes of it differ (it draws random numbers in eval mode, or keeps state between passes)")
        try:
            exact = self._both(sample, torch.float64, 0.0)
            if _close(*exact, TOLERANCE[torch.float64]):
                if plain is not None and _beyond_rounding(found, plain, exact[1]):
                    raise self._error(
                        sample, found, exact[1], f"in {own}, where plain autograd gives nearly the same as in float64"
                    )
                return
            if _close(*self._both(sample, torch.float64, NOISE), TOLERANCE[torch.float64]):
                return
        except (SelfCheckError, LeftOut, MemoryError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            if plain is None or _comes_from_outside(error):
                raise
            if _close(*self._both(sample, own, NOISE), COARSE):
                raise LeftOut(f"numbers differ in {own}, and the model does not run in float64: {error}") from error
            raise self._error(sample, found, plain, f"in {own}; the model does not run in float64") from error
        raise self._error(sample, *exact, "in float64, and with noise on the weights")

    def _numbers(self, sample: Batch) -> Numbers:
        """By the second way, in a batch of two where the model takes one."""
        try:
            return self.way.numbers(sample)
        except (RuntimeError, TypeError, ValueError, LookupError, AssertionError) as error:
            if self.way.rows == 1 or memory.exhausted(error) or _comes_from_outside(error):
                raise
            log.info("%s takes no batch of two: it is checked with batches of one (%s)", self.name, error)
            self.way.rows = 1
            return self.way.numbers(sample)

    def _both(self, sample: Batch, dtype: torch.dtype, noise: float) -> tuple[Numbers, Numbers]:
        """The numbers by the engine and by the second way, in another type or place.

        Where outputs depend on the batch, a batch of one is what a score is defined by.
        """
        there = self.way.elsewhere(dtype, noise)
        sample = in_type(sample, dtype, noise)
        problem = Problem.of(there.copy(), there.rule, there.task, there.own.__contains__, self.problem.device)
        runner = self.make_runner(problem, self.options.engine)
        runner.run(sample)
        result = runner.results[0]
        found = Numbers(*(float(t[0]) for t in (result.loss, result.grad_norm, result.perturbed_loss)))
        plain = there.numbers(sample)
        if not math.isclose(there.loss(sample, 1), plain.loss, rel_tol=1e-6, abs_tol=1e-9):
            log.info("%s gives a sample other outputs in a batch of two: it is checked with batches of one", self.name)
            self.way.rows = there.rows = 1
            plain = there.numbers(sample)
        return found, plain

    def _error(self, sample: Batch, found: Numbers, plain: Numbers, where: str) -> SelfCheckError:
        pairs = ", ".join(f"{n} {a:.6g} and {b:.6g}" for n, a, b in zip(Numbers._fields, found, plain, strict=True))
        past = (
            f". Gradients come to {', '.join(sorted(self.way.past)[:5])} past the module's attributes"
            if self.way.past
            else ""
        )
        return SelfCheckError(
            f"expected sample {sample.start} of the pool to have the same numbers by the engine and by plain autograd on a copy "
            f'of {self.name}, got {pairs} ({where}){past}; {CAUSES}. check="warn" goes on, check=False does not look'
        )

    def _name_unreached(self) -> None:
        unreached = [name for name in self.problem.params if name not in self.way.reached]
        if unreached and self.way.reached:  # of none at all `check_task` has told
            names = ", ".join(unreached[:5]) + (", ..." if len(unreached) > 5 else "")
            warn_once(
                type(self.problem.model).__qualname__,
                f"no gradient reached {len(unreached)} of {len(self.problem.params)} parameters of {self.name} for the samples "
                f"checked, so that they are not perturbed there: {names}",
            )


def _close(a: Numbers, b: Numbers, tolerance: tuple[float, float]) -> bool:
    relative, absolute = tolerance
    if not all(math.isclose(x, y, rel_tol=relative, abs_tol=absolute) for x, y in zip(a, b, strict=True)):
        return False
    rises = (a.perturbed_loss - a.loss, b.perturbed_loss - b.loss)
    return math.isclose(*rises, rel_tol=10 * relative, abs_tol=absolute * (1 + abs(b.loss)))


def _beyond_rounding(found: Numbers, plain: Numbers, exact: Numbers) -> bool:
    """Whether numbers are far from exact ones, and those by plain autograd in the same type are not."""
    return any(
        abs(a - c) > 0.05 * abs(c) + 1e-4 and abs(a - c) > 100 * abs(b - c)
        for a, b, c in zip(found, plain, exact, strict=True)
    )


def _rows(result: Result) -> list[int]:
    """The first finite sample, and the one with the largest gradient."""
    good = result.finite & result.loss.isfinite() & result.perturbed_loss.isfinite() & result.grad_norm.isfinite()
    rows = good.nonzero()[:, 0].tolist()
    if not rows:
        raise LeftOut("no sample of the first batch has finite numbers")
    largest = int(torch.where(good, result.grad_norm, -1).argmax())
    return sorted({rows[0], largest})


def _label(result: Result, row: int) -> Any:
    """The label of one sample, with its dimension of one."""
    n = len(result.loss)
    if isinstance(result.label, list) and any(t.shape[:1] != (n,) for t in tree_leaves(result.label)):
        return result.label[row]  # labels of several shapes
    return tree_map(lambda t: t[row : row + 1], result.label)


def _samples(positions: Iterator[int]) -> str:
    listed = list(map(str, positions))
    return f"sample{'s' if len(listed) > 1 else ''} {', '.join(listed)}"


def _verdicts_of(model: nn.Module) -> dict[Any, str]:
    known = _known.get(id(model))
    if known is None or known[0]() is not model:
        number = id(model)
        known = _known[number] = (weakref.ref(model, lambda _: _known.pop(number, None)), {})
    return known[1]


def _key(problem: Problem, options: ScoreOptions, example: Batch) -> tuple[Any, ...]:
    """What a verdict holds for: options, kinds of inputs, and how the model is built; not the weights' values."""
    model = problem.model
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    built = tuple(
        (name, type(m), tuple(id(hook) for kind in hooks for hook in vars(m).get(kind, {}).values()))
        for name, m in model.named_modules()
    )
    weights = tuple((n, p.requires_grad, n in problem.params, p.shape, p.dtype) for n, p in model.named_parameters())
    inputs = tuple((t.ndim, t.dtype) for t in example.tensors)
    kinds = (
        type(problem.task),
        options.engine,
        problem.precision,
        problem.device,
        options.labels is None,
        options.embeddings,
    )
    return (problem.rule, *kinds, inputs, tuple(example.kwargs), weights, built)


def _comes_from_outside(error: BaseException) -> bool:
    """Whether an exception is none of the check's: the system's, or raised by one of the process's signal handlers."""
    if isinstance(error, (OSError, EngineError)):
        return isinstance(error, OSError)
    handlers = {getattr(signal.getsignal(s), "__code__", None) for s in signal.valid_signals()} - {None}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


@contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    """Leaves the global generators of torch, NumPy and Python where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
