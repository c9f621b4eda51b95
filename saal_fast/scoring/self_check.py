"""The self-check of a call: one or two samples are scored a second way, and a difference that is no rounding is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.utils._pytree import tree_leaves, tree_map

from .._utils.failures import foreign_failure
from .._utils.logs import warn_once
from .._utils.rng import GlobalGenerators
from ..engines import Problem, Result
from ..models import memory
from ..pools import Batch
from .comparison import Comparison, LeftOut, MakeRunner, SelfCheckError, numbers_of
from .known import Known
from .options import ScoreOptions
from .second_way import SecondWay

DIFFERED = "differed: "
"""How the verdict begins on numbers that are wrong, which `check="warn"` has let pass."""

COPIES = 8
"""What the check holds at once, in sizes of the model: two copies, and gradients, steps and sums in float64."""


class SelfCheck:
    """Checks one call of `score`, unless the model object was checked under the same options before.

    Args:
        problem: what is scored, by a model that has not been run yet in this call: it is copied now.
        options: of the call.
        make_runner: makes the runner of a problem, as for the call itself.
        known: what earlier calls of this kind have found of the model object; it takes the verdict.

    Attributes:
        due: whether `see` has yet to be called.
        verdict: what came of it; None while it is due, and where it is switched off.
    """

    def __init__(self, problem: Problem, options: ScoreOptions, make_runner: MakeRunner, known: Known) -> None:
        self.problem, self.options, self.known = problem, options, known
        self.subject = type(problem.model).__qualname__
        self.verdict: str | None = None
        self.due = False
        self.comparison: Comparison | None = None
        if options.check is False:
            return
        self.verdict = known.verdict
        self.due = self.verdict is None or (options.check == "raise" and self.verdict.startswith(DIFFERED))
        self.versions = self.problem.versions()
        if self.due:
            self._guarded(lambda: self._prepare(make_runner))

    def see(self, batch: Batch, result: Result) -> None:
        """Checks the first finite sample of a batch, and of the others the one with the largest gradient, where that is due.

        Args:
            batch: what was scored first.
            result: of its first samples, or of all.

        Raises:
            SelfCheckError: the numbers of a sample differ, and `options.check` is "raise".
        """
        comparison, self.comparison = self.comparison, None
        if comparison is None or self.versions != self.problem.versions():  # `preserve_state` will tell of the latter
            return
        self._guarded(lambda: self._compare(comparison, batch, result))

    def _prepare(self, make_runner: MakeRunner) -> None:
        self._check_memory()
        self.comparison = Comparison(self.problem, SecondWay.of(self.problem), make_runner, self.options.engine)

    def _compare(self, comparison: Comparison, batch: Batch, result: Result) -> None:
        rows = _rows(result)
        for row in rows:
            comparison.check(batch.slice(row, row + 1).with_labels(_label(result, row)), numbers_of(result, row))
        self._name_unreached(comparison.way.reached)
        self._remember(f"agreed on {_listed(batch.start + row for row in rows)}")

    def _guarded(self, work: Callable[[], None]) -> None:
        """Turns what goes wrong with the work into a verdict; leaves random number generators as they are.

        Raises:
            SelfCheckError: the numbers of a sample differ, and `options.check` is "raise".
            Exception: what struck the work from outside (a signal's handler, another thread), and errors of the system.
        """
        generators = GlobalGenerators({self.problem.device} if self.problem.device.type == "cuda" else ())
        try:
            work()
        except SelfCheckError as error:
            if self.options.check == "raise":
                raise
            warn_once(self.subject, str(error))
            self._remember(f"{DIFFERED}{error}")
        except LeftOut as reason:
            self._leave_out(str(reason))
        except Exception as error:
            if isinstance(error, OSError) or foreign_failure(error, work) is not None:
                raise
            self._leave_out(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        finally:
            generators.put_back()

    def _remember(self, verdict: str) -> None:
        self.verdict = self.known.verdict = verdict
        self.due = False

    def _leave_out(self, reason: str) -> None:
        warn_once(self.subject, f"the self-check of {type(self.problem.model).__name__} was left out: {reason}")
        self._remember(f"left out: {reason}")

    def _check_memory(self) -> None:
        state = [*self.problem.model.parameters(), *self.problem.model.buffers()]
        if any(t.is_meta for t in state):
            raise LeftOut("its weights are on the device meta, without values")
        needed, free = COPIES * memory.nbytes(state), memory.free(self.problem.device)
        if free is not None and needed > free:
            raise LeftOut(f"copies of the model and their gradients take {needed:,} bytes, of which {free:,} are free")

    def _name_unreached(self, reached: set[str]) -> None:
        unreached = [name for name in self.problem.params if name not in reached]
        if not unreached or not reached:  # that none at all is reached `check_task` has told
            return
        names = ", ".join(unreached[:5]) + (", ..." if len(unreached) > 5 else "")
        warn_once(
            self.subject,
            f"no gradient reached {len(unreached)} of {len(self.problem.params)} parameters of "
            f"{type(self.problem.model).__name__} for the samples checked, so that these are not perturbed there: {names}",
        )


def _rows(result: Result) -> list[int]:
    """The first sample that is finite, and of the others the one with the largest gradient."""
    good = result.finite & result.loss.isfinite() & result.perturbed_loss.isfinite() & result.grad_norm.isfinite()
    rows = good.nonzero()[:, 0].tolist()
    if not rows:
        raise LeftOut("no sample of the first batch has finite numbers")
    return sorted([rows[0], *sorted(rows[1:], key=lambda row: -float(result.grad_norm[row]))[:1]])


def _label(result: Result, row: int) -> Any:
    """The label of one sample, with its dimension of one."""
    n = len(result.loss)
    if isinstance(result.label, list) and any(t.shape[:1] != (n,) for t in tree_leaves(result.label)):
        return result.label[row]  # labels of several shapes
    return tree_map(lambda t: t[row : row + 1], result.label)


def _listed(positions: Iterable[int]) -> str:
    listed = list(map(str, positions))
    return f"sample{'s' if len(listed) > 1 else ''} {', '.join(listed)}"
