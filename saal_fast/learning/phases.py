"""The two phases of a round that compute: training with its evaluation, and the choice of what to ask."""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import nn

from ..strategies import Strategy, TrainingHook
from .ledger import Ledger
from .rows import Labelled, take
from .seeds import seeded
from .store import DamagedRecordError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Train(Protocol):
    """A training of the user's own: `Training`, or any function of these three."""

    def __call__(self, model: nn.Module, labelled: Labelled, hook: TrainingHook, /) -> Mapping[str, float] | None:
        """Trains `model`, given in training mode, in place; may call the strategy's `hook`, and tell numbers to record."""
        ...


@dataclass(eq=False)
class Phases:
    """What a learner computes, and records in its ledger; the arguments are those of `ActiveLearner`."""

    factory: Callable[[], nn.Module]
    pool: Any
    strategy: Strategy
    k: int
    candidates: int | None
    train: Train
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None
    warm_start: bool
    keep_models: Literal["last", "all"]
    ledger: Ledger

    def __post_init__(self) -> None:
        self._model: tuple[str, nn.Module] | None = None
        self._made: weakref.ref[nn.Module] | None = None
        self._fitted: str | None = None  # the checksum of the model that this very object trained last

    @property
    def model(self) -> nn.Module:
        """The model trained last, in eval mode.

        Raises:
            ValueError: none was trained yet.
        """
        number = max((n for n, record in enumerate(self.ledger.records) if "fit" in record), default=None)
        if number is None:
            raise ValueError("there is no model yet: fit or ask first")
        checksum = self.ledger.records[number]["fit"]["model"]
        if self._model is None or self._model[0] != checksum:
            model = self._make(0)
            model.load_state_dict(self._learnt(number)["model"])
            self._model = checksum, model.eval()
        return self._model[1]

    def fit(self) -> None:
        """Trains and evaluates a model on what is labelled, unless that is done already.

        Raises:
            ValueError: the initial labels are not all told.
            OSError: a record cannot be written.
        """
        ledger = self.ledger
        if ledger.number == 0:
            raise ValueError(f"there are no labels yet: tell those of the {len(ledger.pending())} samples asked for first")
        if "fit" in ledger.current:
            return
        started, name = time.perf_counter(), f"{ledger.number:04d}-fit"
        previous = self._learnt(ledger.number - 1) if self.warm_start and ledger.number > 1 else None
        rows, labels = ledger.labelled()
        model = self._make(ledger.seeds.draw())
        if previous is not None:
            model.load_state_dict(previous["model"])
        hook = self._hook(model, None if previous is None else previous["hook"], self.generator())
        try:
            model.train()
            with seeded(ledger.seeds.draw()):
                training = _numbers(self.train(model, Labelled(self.pool, rows, labels), hook), "train")
        finally:
            hook.close()
        model.eval()
        trained = time.perf_counter()
        with seeded(ledger.seeds.draw()):
            metrics = _numbers(None if self.evaluate is None else self.evaluate(model), "evaluate")
        checksum = ledger.store.write_tensors(name, {"model": model.state_dict(), "hook": hook.state_dict()})
        ledger.write("fit", {"labelled": len(rows), "training": training, "metrics": metrics, "model": checksum})
        self._model, self._fitted = (checksum, model), checksum
        if self.keep_models == "last":
            before = f"{ledger.number - 1:04d}-fit.pt"  # what a warm start, or a rewind of this round, goes on from
            for file in ledger.store.names():
                if file.endswith(".pt") and file not in (before, f"{name}.pt"):
                    ledger.store.remove(file)
        seconds = {"train": trained - started, "evaluate": time.perf_counter() - trained}
        ledger.store.log(
            event="fit", round=ledger.number, labelled=len(rows), training=training, metrics=metrics, seconds=seconds
        )

    def choose(self) -> None:
        """Lets the strategy choose from the unlabelled samples, if there are any.

        Raises:
            ValueError: the strategy's answer is none.
            OSError: the record cannot be written.
        """
        ledger, started = self.ledger, time.perf_counter()
        rest = ledger.unlabelled()
        if not len(rest):
            return
        model, labelled = self.model, take(self.pool, ledger.labelled()[0])
        if (
            self._fitted != ledger.current["fit"]["model"]
        ):  # by a process that is gone: the strategy learns again what it had learnt
            state = self._learnt(ledger.number)["hook"]
            if state:
                self._hook(model, state, torch.Generator()).close()
        generator = self.generator()
        if self.candidates is not None and self.candidates < len(rest):
            rest = rest[torch.randperm(len(rest), generator=generator)[: self.candidates].sort().values]
        k = min(self.k, len(rest))
        with seeded(ledger.seeds.draw()):
            chosen = self.strategy.select(model, take(self.pool, rest), k, labelled=labelled, generator=self.generator())
        picks = chosen.indices.tolist()
        if len(set(picks)) != k or len(picks) != k or not all(0 <= i < len(rest) for i in picks):
            raise ValueError(f"expected {k} different positions in [0, {len(rest)}) from {self.strategy.name}, got {picks}")
        ledger.write(
            "ask",
            {
                "indices": rest[chosen.indices].tolist(),
                "scores": chosen.scores[chosen.indices].tolist(),
                "oracle": ledger.seeds.draw(),
            },
        )
        ledger.store.log(event="ask", round=ledger.number, seconds={"select": time.perf_counter() - started})

    def _hook(self, model: nn.Module, state: dict[str, Any] | None, generator: torch.Generator) -> TrainingHook:
        rows, unlabelled = self.ledger.labelled()[0], self.ledger.unlabelled()
        hook = self.strategy.training(
            model, pool=take(self.pool, unlabelled), labelled=take(self.pool, rows), generator=generator
        )
        if state:
            hook.load_state_dict(state)
        return hook

    def _make(self, seed: int) -> nn.Module:
        with seeded(seed):
            model = self.factory()
        if not isinstance(model, nn.Module):
            raise TypeError(f"expected model to make an nn.Module, it made {type(model).__name__}")
        if self._made is not None and self._made() is model:
            raise ValueError(
                "expected model to make a new model each time, got the same object as before: a round would go on from the "
                "weights of the last. Build it inside the function; warm_start=True goes on from them"
            )
        self._made = weakref.ref(model)
        return model

    def _learnt(self, number: int) -> dict[str, Any]:
        """The model's and the strategy's state of a round: `model` and `hook`.

        Raises:
            DamagedRecordError: it is gone or damaged. With labels told since, no rewind, which deletes them, is advised.
        """
        record = self.ledger.records[number]
        try:
            return dict(self.ledger.store.read_tensors(f"{number:04d}-fit", record["fit"]["model"]))
        except DamagedRecordError as error:
            if "tell" not in record:
                raise
            need = (
                "A warm start goes on from it. Put it back, or begin a run in another folder with these labels"
                if self.warm_start
                else "The run can go on: fit or ask trains a new model"
            )
            why = str(error).partition(". Earlier rounds")[0]
            raise DamagedRecordError(f"{why}. All labels are intact (`ActiveLearner.labelled`). {need}") from error

    def generator(self) -> torch.Generator:
        """A generator of the run's next seed."""
        return torch.Generator().manual_seed(self.ledger.seeds.draw())


def _numbers(told: Mapping[str, float] | None, by: str) -> dict[str, float]:
    """What was told, as plain numbers by name."""
    try:
        return {str(name): float(value) for name, value in (told or {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise TypeError(f"expected {by} to give numbers by name, or None; got {told!r} ({error})") from error
