"""The runner: batch after batch by one engine, with fallbacks that are logged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar, overload

import torch
from torch import Tensor

from .._utils.failures import foreign_failure
from .._utils.logs import log, warn_once
from ..engines import ENGINES, Engine, EngineError, Problem, Result
from ..engines.branches import Splits, Splitting
from ..engines.capture import captured
from ..engines.findings import shapes_of
from ..models import memory
from ..pools import Batch
from .options import EngineName

T = TypeVar("T")
Engines = Mapping[str, Callable[[Problem], Engine]]
Capture = Callable[[Engine, torch.device], Engine]


class Runner:
    """Scores batch after batch with the engine asked for, or, on "auto", with reference where that engine cannot.

    Args:
        problem: what is scored.
        asked: name of the engine.
        engines: what makes an engine of a problem, by name.
        capture: gives an engine that captures and replays batches on a device.
    """

    def __init__(self, problem: Problem, asked: EngineName, engines: Engines = ENGINES, capture: Capture = captured) -> None:
        self.problem, self.asked, self.engines = problem, asked, engines
        self.name = "ghost" if asked == "auto" else asked
        self.capture, self.splits = capture, Splits(self._alone)
        self.engine = self._made()
        self.versions = problem.versions()
        self.fallback: str | None = None
        self.largest: int | None = None  # batch that memory has been found to hold
        self.results: list[Result] = []

    def batch_size(self, example: Batch, length: int | None, max_memory: int | None) -> int:
        """A size whose memory fits the device and `max_memory`, for a pool of that length."""
        extra = self._attempt(example, lambda engine: engine.sample_bytes(example))
        problem, known, shapes = self.problem, self.problem.findings.activations, shapes_of(example)
        if shapes not in known:
            known[shapes] = memory.activations(lambda: problem.output(problem.recorded(), example))
        return memory.evened(memory.size_for(known[shapes], problem.device, extra, max_memory), length)

    def run(self, batch: Batch) -> Tensor:
        """Scores a batch, in parts where memory does not hold it, keeps the results, and says which are finite, bool [B].

        A batch that is the first one to change what modules hold is scored once more, each pass from what was there before.
        """
        count = len(self.results)
        finite = self._run(batch)
        while self._found_changes(batch):
            del self.results[count:]
            finite = self._run(batch)
        return finite

    def put_back(self) -> None:
        """Puts back what passes have changed in objects that modules hold; `preserve_state` does so for modules alone."""
        if self.problem.habits.keeps:
            self.problem.habits.keeps.restore()

    def _made(self) -> Engine:
        engine = self.engines[self.name](self.problem)
        if self.asked == "auto" and isinstance(engine, Splitting):
            engine.splits = self.splits
        return engine if self.name == "reference" else self.capture(engine, self.problem.device)

    def _found_changes(self, batch: Batch) -> bool:
        """Whether the batch has changed what none before it has; then that is put back, and from now on before each pass."""
        habits = self.problem.habits
        untouched = habits.untouched
        if untouched is None or not untouched.touched() or self.versions != self.problem.versions():
            return False  # of weights that were trained meanwhile `preserve_state` will tell
        changed = untouched.restore()
        if changed is None:
            return False
        log.info("passes over samples from %d on change what the model's modules hold: it is put back", batch.start)
        habits = replace(habits, keeps=changed.joined(habits.keeps), untouched=untouched.of_modules(changed))
        self.problem = replace(self.problem, habits=habits)
        self.engine = self._made()
        return True

    def _run(self, batch: Batch) -> Tensor:
        finite = []
        begin = 0
        if self.name != "reference" and 2 * self.splits.by_themselves > self.splits.samples:
            self.name = "reference"
            self.engine = self._made()
            self.fallback = f"from sample {batch.start} on: {self.fallback}"
            log.info("scoring by the reference engine, by estimate at less cost: samples all take branches of their own")
        while begin < batch.size:
            part = batch.slice(begin, begin + (self.largest or batch.size))
            try:
                result = self._attempt(part)
            except Exception as error:
                if part.size == 1 or not memory.exhausted(error):
                    raise
                self._halve(part.size)
                continue
            result = result._replace(finite=result.finite & result.grad_norm.isfinite())  # an overflowed norm pushes nowhere
            self.results.append(result)
            finite.append(result.finite)
            begin += part.size
            if self.splits.by_themselves:
                self._tell_of_splits()
        return torch.cat(finite)

    def _tell_of_splits(self) -> None:
        """Says which samples were scored one by one, because few others take their branches of the model's code."""
        reason = f"{self.splits.by_themselves} of {self.splits.samples} samples take branches that hardly any other takes"
        if self.fallback is None:
            log.info("%s: the reference engine scores these, by estimate at less cost", reason)
        if self.name != "reference":
            self.fallback = f"{reason}: the reference engine scored these, by estimate at less cost"

    def _alone(self, batch: Batch) -> Result:
        return self.engines["reference"](self.problem)(batch)

    def _halve(self, size: int) -> None:
        self.largest = size // 2
        log.warning("memory ran out on a batch of %d samples: going on with batches of %d", size, self.largest)
        if self.problem.device.type == "cuda":
            torch.cuda.empty_cache()

    @overload
    def _attempt(self, batch: Batch) -> Result: ...

    @overload
    def _attempt(self, batch: Batch, work: Callable[[Engine], T]) -> T: ...

    def _attempt(self, batch: Batch, work: Callable[[Engine], T] | None = None) -> T | Result:
        """What the engine makes of a batch, or `work` of the engine.

        What an engine cannot do becomes a fallback on "auto", and an `EngineError` where the engine was asked for. An error
        that the reference raises too is the model's own, and is raised as it is; so is want of memory, and what a signal
        handler or another thread raised while the engine worked (see `foreign_failure`).
        """
        do: Callable[[Engine], T | Result] = work or (lambda engine: engine(batch))
        try:
            return do(self.engine)
        except Exception as error:
            if self.name == "reference" or memory.exhausted(error):
                raise
            foreign = foreign_failure(error, lambda: do(self.engine))
            if foreign is error:
                raise
            if foreign is not None:
                raise foreign from None
            reference = self.engines["reference"](self.problem)
            scored = reference(batch)
            first = str(error).strip().partition("\n")[0]  # torch's compiler adds its whole stack
            reason = f"{self.name} cannot run {type(self.problem.model).__name__}: {type(error).__name__}: {first}"
            if self.asked != "auto":
                raise EngineError(reason) from error
            self._fall_back(reference, reason if not self.results else f"from sample {batch.start} on: {reason}")
        return work(self.engine) if work else scored

    def _fall_back(self, reference: Engine, reason: str) -> None:
        self.name, self.engine, self.fallback = "reference", reference, reason
        message = f"scoring by the reference engine, many times slower: {reason}"
        warn_once(type(self.problem.model).__qualname__, message)
