"""The comparison of an engine's numbers with those of the second way, by stages that leave rounding and ties out of account.

Numbers that differ by more than the type's rounding are taken again in float64 by both ways, and once more with a little
noise on weights and inputs. A difference by rounding vanishes in the first, one by ties (a ReLU at exactly 0, equal maxima
in a pooling) in the second. The label is always the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from .._utils.failures import is_from_handler
from .._utils.logs import log
from .._utils.rng import beside_others
from ..engines import Problem, Result
from ..engines.problem import KeptError
from ..models import memory
from ..pools import Batch
from .check_task import check_task
from .options import EngineName
from .runner import Runner
from .second_way import Numbers, SecondWay, in_type

MakeRunner = Callable[[Problem, EngineName], Runner]
Tolerance = tuple[float, float]

TOLERANCE: dict[torch.dtype, Tolerance] = {  # relative, absolute
    torch.float64: (1e-5, 1e-9),
    torch.float32: (1e-3, 1e-5),
    torch.float16: (2e-2, 1e-2),
    torch.bfloat16: (5e-2, 5e-2),
}
COARSE: Tolerance = (5e-2, 1e-3)
"""What rounding in float32 can't exceed at a point without ties, for models that don't run in float64."""

NO_STEP = 1e-12
"""A radius that moves no weight to speak of."""

NOISE = 1e-3
"""Relative size of the noise that takes a model off its ties."""

CAUSES = (
    "usual causes: weights reached past the module's attributes (a closure, a global), values computed from weights and "
    "kept from an earlier pass, code that asks torch.is_grad_enabled(), dropout or noise in eval mode, outputs of a sample "
    "that depend on the rest of its batch, attributes of Parameter objects, or a wrong registered "
    "layer, replacement or vmap rule of an autograd function"
)


class SelfCheckError(RuntimeError):
    """A sample's numbers differ from those that plain autograd gives; the message names the sample and both."""


class LeftOut(Exception):  # noqa: N818 - says what becomes of the check; not an error
    """The check can't be made, or can't be decided; the message says why."""


class Comparison:
    """Compares the numbers of samples.

    Args:
        problem: what is scored.
        way: the second way for it.
        make_runner: makes the runner of a problem, as for the call itself.
        engine: as the call asked for it.
    """

    def __init__(self, problem: Problem, way: SecondWay, make_runner: MakeRunner, engine: EngineName) -> None:
        self.problem, self.way, self.make_runner, self.engine = problem, way, make_runner, engine
        self.name = type(problem.model).__name__
        self.dtype = next(iter(problem.params.values())).dtype

    def check(self, sample: Batch, found: Numbers) -> None:
        """Checks a batch of one with its label, for which the engine found these numbers.

        Raises:
            SelfCheckError: they are wrong.
            LeftOut: that can't be decided.
        """
        plain = None
        if self.problem.precision is None:  # rounding under autocast says little: it is checked in float64 at once
            plain = self._numbers(sample)
            if self.way.past:
                self._check_past(sample, found, plain)
                return
            if close(found, plain, TOLERANCE[self.dtype]):
                return
            log.info("sample %d differs in %s: %s by the engine, %s", sample.start, self.dtype, found, plain)
        if self.way.varies(sample, _same_loss):
            self._check_passes(sample)
            raise LeftOut("two passes of it differ (it draws random numbers in eval mode, or keeps state between passes)")
        try:
            if self.way.blind(sample):
                raise LeftOut("gradients do not follow what train() or eval() computes from its weights")
            theirs, exact = self._both(sample, torch.float64, 0.0)
            by_ties = not close(theirs, exact, TOLERANCE[torch.float64])
            if by_ties and not close(*self._both(sample, torch.float64, NOISE), TOLERANCE[torch.float64]):
                raise self._error(sample, theirs, exact, "in float64, and with noise on the weights")
        except (RuntimeError, TypeError, ValueError) as error:
            if plain is None or isinstance(error, SelfCheckError) or memory.exhausted(error) or is_from_handler(error):
                raise
            if isinstance(error, KeptError):
                raise self._error(sample, found, plain, f"in {self.dtype}; on a fresh copy, {error}") from error
            self._check_in_own_type(sample, found, plain, error)
            return
        if plain is not None and not by_ties and beyond_rounding(found, plain, exact):
            where = f"in {self.dtype}, where plain autograd gives the same as in float64 but for rounding"
            raise self._error(sample, found, plain, where)
        if plain is not None and not by_ties:
            self._check_kept(sample, found, plain, theirs, exact)

    def _check_passes(self, sample: Batch) -> None:
        """Raises SelfCheckError where the engine's two passes over a sample differ though no weight moves."""
        still = replace(self.problem, rule=replace(self.problem.rule, rho=NO_STEP))  # type: ignore[type-var] # a dataclass
        studied = check_task(still, sample, None).problem
        if studied.habits.draws and beside_others():  # other threads draw from the same generators between the passes
            return
        runner = self.make_runner(studied, self.engine)
        runner.run(sample)
        numbers = numbers_of(runner.results[0], 0)
        relative, absolute = TOLERANCE[self.dtype]
        if math.isclose(numbers.loss, numbers.perturbed_loss, rel_tol=relative, abs_tol=absolute):
            return
        raise SelfCheckError(
            f"expected both passes over sample {sample.start} of the pool to be one function of the weights of {self.name}; "
            f"where no weight moves, the first gives a loss of {numbers.loss:.6g}, the second {numbers.perturbed_loss:.6g}: "
            "it draws random numbers from a generator, or keeps state, that is not in its modules' attributes (a global, a "
            'class, an object of its own). Make it an attribute of a module; check="warn" goes on, check=False does not look'
        )

    def _check_kept(self, sample: Batch, found: Numbers, plain: Numbers, theirs: Numbers, exact: Numbers) -> None:
        """Raises SelfCheckError where the engine is right on a fresh copy in the same type, and was not on the model."""
        if check_task(self.problem, sample, None).problem.habits.aliased:
            return  # what it keeps of its weights' own memory moves with them, and on a copy it does not
        tolerance = TOLERANCE[self.dtype]
        fresh = theirs if self.dtype == torch.float64 else self._both(sample, self.dtype, 0.0)[0]
        if close(fresh, exact, tolerance) and not close(found, fresh, (10 * tolerance[0], 10 * tolerance[1])):
            where = (
                f"in {self.dtype}; on a copy from which what it keeps was taken, the engine gives the same as plain autograd"
            )
            raise self._error(sample, found, plain, where)

    def _check_past(self, sample: Batch, found: Numbers, plain: Numbers) -> None:
        """Compares loss and norm alone: the copy's code reaches weights of the user's own model too, which are not moved."""
        here, there = (n._replace(perturbed_loss=0.0) for n in (found, plain))
        if not close(here, there, TOLERANCE[self.dtype]):
            raise self._error(sample, found, plain, f"in {self.dtype}")

    def _check_in_own_type(self, sample: Batch, found: Numbers, plain: Numbers, error: Exception) -> None:
        """Compares coarsely, off the ties, for a model that does not run in float64."""
        if not close(*self._both(sample, self.dtype, NOISE), COARSE):
            raise self._error(sample, found, plain, f"in {self.dtype}; the model does not run in float64") from error
        raise LeftOut(f"numbers differ in {self.dtype}, and the model does not run in float64: {error}") from error

    def _numbers(self, sample: Batch) -> Numbers:
        """By the second way, in a batch of two where the model takes one."""
        try:
            return self.way.numbers(sample)
        except (RuntimeError, TypeError, ValueError, LookupError, AssertionError) as error:
            if self.way.rows == 1 or memory.exhausted(error) or is_from_handler(error):
                raise
            log.info("%s takes no batch of two: it is checked with batches of one (%s)", self.name, error)
            self.way.rows = 1
            return self.way.numbers(sample)

    def _both(self, sample: Batch, dtype: torch.dtype, noise: float) -> tuple[Numbers, Numbers]:
        """The numbers by the engine and by the second way, in another type or place.

        Where outputs depend on the rest of the batch, or code of the model's own in its backward pass adds gradients to rows
        that have none, a batch of one is what a score is defined by.
        """
        there = self.way.elsewhere(dtype, noise)
        sample = in_type(sample, dtype, noise)
        problem = Problem.of(there.copy(), there.rule, there.task, there.own.__contains__, self.problem.device)
        problem = check_task(problem, sample, None).problem
        runner = self.make_runner(problem, self.engine)
        runner.run(sample)
        found = numbers_of(runner.results[0], 0)
        plain = there.numbers(sample)
        added = problem.habits.own_backward and not close(found, plain, TOLERANCE[dtype])
        if there.rows > 1 and (added or not _same_loss(there.loss(sample, 1), plain.loss)):
            log.info("%s gives a sample other numbers in a batch of two: it is checked with batches of one", self.name)
            self.way.rows = there.rows = 1
            plain = there.numbers(sample)
        return found, plain

    def _error(self, sample: Batch, found: Numbers, plain: Numbers, where: str) -> SelfCheckError:
        pairs = ", ".join(f"{n} {a:.6g} and {b:.6g}" for n, a, b in zip(Numbers._fields, found, plain, strict=True))
        names = ", ".join(sorted(self.way.past)[:5])
        past = f". Gradients come to {names} past the module's attributes" if names else ""
        return SelfCheckError(
            f"expected sample {sample.start} of the pool to have the same numbers by the engine and by plain autograd on a "
            f'copy of {self.name}, got {pairs} ({where}){past}; {CAUSES}. check="warn" goes on, check=False does not look'
        )


def numbers_of(result: Result, row: int) -> Numbers:
    """An engine's numbers of one sample."""
    return Numbers(*(float(t[row]) for t in (result.loss, result.grad_norm, result.perturbed_loss)))


def close(a: Numbers, b: Numbers, tolerance: Tolerance) -> bool:
    """Whether two samples' numbers agree; so must perturbed minus plain loss, with a digit less since digits cancel."""
    relative, absolute = tolerance
    if not all(math.isclose(x, y, rel_tol=relative, abs_tol=absolute) for x, y in zip(a, b, strict=True)):
        return False
    rises = (a.perturbed_loss - a.loss, b.perturbed_loss - b.loss)
    return math.isclose(*rises, rel_tol=10 * relative, abs_tol=absolute * (1 + abs(b.loss)))


def beyond_rounding(found: Numbers, plain: Numbers, exact: Numbers) -> bool:
    """Whether numbers are far from exact ones, and those by plain autograd in the same type are not."""
    return any(
        abs(a - c) > 0.05 * abs(c) + 1e-4 and abs(a - c) > 100 * abs(b - c)
        for a, b, c in zip(found, plain, exact, strict=True)
    )


def _same_loss(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
