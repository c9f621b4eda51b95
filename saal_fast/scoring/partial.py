"""What an error in the middle of a pool carries: the position of its sample, and the scores of those before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor
from torch.utils._pytree import tree_map

from .._utils.failures import FailuresWithin, is_from_handler, struck_by
from .._utils.notes import add_note, attach, thawed
from ..engines import Problem
from ..pools import Batch
from .locate import first_failing
from .nonfinite import NonFiniteError
from .result import Scores, gather, no_scores
from .runner import Runner

Function = TypeVar("Function", bound=Callable[..., Any])


class Carrying:
    """Within it, an error gets two attributes, and a note that names them; it stays the same object.

        scores_so_far   `Scores` of the samples before it, in order, on the CPU
        sample          position of the sample that the error came from; of the first one of its batch where that is unknown

    An attribute of such a name that the error has of its own stays.

    Attributes:
        problem: what is scored; None before the pool is read, when errors carry nothing.
        runner: what scores it; None before the first batch.
    """

    def __init__(self) -> None:
        self.problem: Problem | None = None
        self.runner: Runner | None = None
        self._at_work: Batch | None = None

    def run(self, batch: Batch) -> Tensor:
        """`runner.run(batch)`, which notes that the runner is at work on it."""
        assert self.runner is not None
        self._at_work = batch
        finite = self.runner.run(batch)
        self._at_work = None
        return finite

    def __enter__(self) -> Carrying:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or self.problem is None:
            return
        error = struck_by(error) or thawed(error)
        place = self._place(self.problem, error)
        try:
            scores = self._scores(self.problem)
        except Exception as another:  # a device that has failed gives nothing back
            add_note(error, f"the scores so far could not be read: {another!r}")
            return
        if isinstance(error, NonFiniteError) and error.sample is not None:
            place, scores = (error.sample, error.sample + 1), _first(scores, error.sample)
        begin, end = place or (len(scores), len(scores) + 1)
        again = isinstance(getattr(error, "scores_so_far", None), Scores)  # the same object, raised in an earlier call
        for name, value in (("scores_so_far", scores), ("sample", begin)):
            if again or getattr(error, name, None) is None:
                attach(error, name, value)
        if self.runner is not None:
            where = f"sample {begin}" if end == begin + 1 else f"samples {begin} to {end - 1}, one batch,"
            add_note(
                error,
                f"at {where} of the pool; the error's scores_so_far has the scores of the {len(scores)} before",
                "score",
            )

    def _place(self, problem: Problem, error: BaseException) -> tuple[int, int] | None:
        """Positions [begin, end) that an error of the runner came from, the samples before it scored if they can be."""
        batch, runner = self._at_work, self.runner
        if batch is None or runner is None:
            return None
        done = sum(len(result.loss) for result in runner.results)
        row = None
        if isinstance(error, Exception) and not is_from_handler(error):
            row = first_failing(problem, batch, error)
        if row is None:
            return done, batch.start + batch.size
        if done < batch.start + row:
            try:
                runner.run(batch.slice(done - batch.start, row))
            except Exception as another:
                add_note(error, f"the samples before it in its batch could not be scored: {another!r}")
        return batch.start + row, batch.start + row + 1

    def _scores(self, problem: Problem) -> Scores:
        runner = self.runner
        if runner is None or not runner.results:
            return no_scores(problem)
        return gather(runner.results, runner.name, runner.fallback)


def as_they_came(function: Function) -> Function:
    """Raises errors as they came.

    Python's own context managers, which set attributes of what passes through them, make a `FrozenInstanceError` of the
    errors of frozen dataclasses; torch's, struck by a signal's error, may make another of that.
    """

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with FailuresWithin():
            try:
                return function(*args, **kwargs)
            except BaseException as error:
                came = struck_by(error) or thawed(error)
                if came is error:
                    raise
                raise came from None

    return call  # type: ignore[return-value] # of the same signature


def _first(scores: Scores, count: int) -> Scores:
    """The scores of the first samples."""
    cut = {
        name: tree_map(lambda t: t[:count] if isinstance(t, Tensor) else t, value) for name, value in vars(scores).items()
    }
    return replace(scores, **cut)
