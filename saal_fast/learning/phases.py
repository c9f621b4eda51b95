"""The two phases of a round that compute: training with its evaluation, and the choice of what to ask."""

from __future__ import annotations

import copy
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import nn

from .._utils.rng import seeded
from ..strategies import Selection, Strategy, TrainingHook
from .ledger import Ledger
from .rows import Labelled, take

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Train(Protocol):
    """A training of the user's own: `Training`, or any function of these three."""

    def __call__(self, model: nn.Module, labelled: Labelled, hook: TrainingHook, /) -> Mapping[str, float] | None:
        """Trains `model`, given in training mode, in place; may call the strategy's `hook`, and tell numbers to record."""
        ...


@dataclass(frozen=True, eq=False)
class Learnt:
    """What a training gave.

    Attributes:
        model: in eval mode.
        hook: the state of the strategy's own.
        training: what training told of itself, by name.
        labelled: how many labels it learnt from.
    """

    model: nn.Module
    hook: dict[str, Any]
    training: dict[str, float]
    labelled: int

    @property
    def state(self) -> dict[str, Any]:
        """What is written to a file."""
        return {"model": self.model.state_dict(), "hook": self.hook}


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
        self._taught: tuple[str, dict[str, Any]] | None = None  # that model's checksum, and the strategy's own state

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
            model.load_state_dict(self.learnt(number)["model"])
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
        started, number = time.perf_counter(), ledger.number
        learnt = self.train_round(number)
        trained = time.perf_counter()
        metrics = self.measure(learnt.model)
        self.keep(number, learnt, metrics)
        seconds = {"train": trained - started, "evaluate": time.perf_counter() - trained}
        ledger.store.log(
            event="fit", round=number, labelled=learnt.labelled, training=learnt.training, metrics=metrics, seconds=seconds
        )

    def train_round(self, number: int) -> Learnt:
        """Trains the model of round `number` on what was told before, from the seeds as they stand.

        Raises:
            DamagedRecordError: a warm start's model of the round before is gone or damaged.
        """
        ledger = self.ledger
        previous = self.learnt(number - 1) if self.warm_start and number > 1 else None
        rows, labels = ledger.labelled(number)
        model = self._make(ledger.seeds.draw())
        if previous is not None:
            model.load_state_dict(previous["model"])
        hook = self._hook(model, number, None if previous is None else previous["hook"], self.generator())
        try:
            model.train()
            with seeded(ledger.seeds.draw()):
                training = _numbers(self.train(model, Labelled(self.pool, rows, labels), hook), "train")
        finally:
            hook.close()
        return Learnt(model.eval(), hook.state_dict(), training, len(rows))

    def measure(self, model: nn.Module) -> dict[str, float]:
        """What the evaluation gives of a model, by name."""
        with seeded(self.ledger.seeds.draw()):
            return _numbers(None if self.evaluate is None else self.evaluate(model), "evaluate")

    def keep(self, number: int, learnt: Learnt, metrics: dict[str, float]) -> None:
        """Records a fit, and lets go of models that are not to be kept."""
        checksum = self.ledger.store.write_tensors(f"{number:04d}-fit", learnt.state)
        content = {"labelled": learnt.labelled, "training": learnt.training, "metrics": metrics, "model": checksum}
        self.ledger.write("fit", content)
        self._model, self._taught = (checksum, learnt.model), (checksum, copy.deepcopy(learnt.hook))
        self.clear(number)

    def clear(self, number: int) -> None:
        """Removes models that are not to be kept, where round `number` is the last that has one."""
        kept = {f"{n:04d}-fit.pt" for n in (number - 1, number)}  # a warm start, or a rewind of this round, goes on from it
        for file in self.ledger.store.names() if self.keep_models == "last" else ():
            if file.endswith(".pt") and file not in kept:
                self.ledger.store.remove(file)

    def choose(self) -> None:
        """Lets the strategy choose from the unlabelled samples, if there are any.

        Raises:
            TypeError: the strategy's answer is no `Selection`.
            ValueError: it does not hold k different positions.
            OSError: the record cannot be written.
        """
        ledger, started = self.ledger, time.perf_counter()
        rest = ledger.unlabelled()
        if not len(rest):
            return
        model, labelled = self.model, take(self.pool, ledger.labelled()[0])
        fitted = ledger.current["fit"]["model"]
        taught = self._taught
        state = taught[1] if taught is not None and taught[0] == fitted else self.learnt(ledger.number)["hook"]
        if state:  # a process that is gone may have trained it, and the strategy may have served another learner since
            with seeded(0):  # for what a dataset draws itself
                self._hook(model, ledger.number, state, torch.Generator()).close()
        generator = self.generator()
        if self.candidates is not None and self.candidates < len(rest):
            rest = rest[torch.randperm(len(rest), generator=generator)[: self.candidates].sort().values]
        k = min(self.k, len(rest))
        with seeded(ledger.seeds.draw()):
            chosen = self.strategy.select(model, take(self.pool, rest), k, labelled=labelled, generator=self.generator())
        if not isinstance(chosen, Selection):
            raise TypeError(f"expected a Selection from {self.strategy.name}, got {type(chosen).__name__}")
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

    def forget(self) -> None:
        """Takes the model and what the strategy has learnt from their files when they are needed next."""
        self._model = self._taught = None

    def _hook(self, model: nn.Module, number: int, state: dict[str, Any] | None, generator: torch.Generator) -> TrainingHook:
        rows, unlabelled = self.ledger.labelled(number)[0], self.ledger.unlabelled(number)
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

    def learnt(self, number: int) -> dict[str, Any]:
        """The model's and the strategy's state of a round: `model` and `hook`.

        Raises:
            DamagedRecordError: it is gone or damaged; the message says what helps.
        """
        checksum = self.ledger.records[number]["fit"]["model"]
        return dict(self.ledger.store.read_tensors(f"{number:04d}-fit", checksum))

    def generator(self) -> torch.Generator:
        """A generator of the run's next seed."""
        return torch.Generator().manual_seed(self.ledger.seeds.draw())


def _numbers(told: Mapping[str, float] | None, by: str) -> dict[str, float]:
    """What was told, as plain numbers by name."""
    try:
        return {str(name): float(value) for name, value in (told or {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise TypeError(f"expected {by} to give numbers by name, or None; got {told!r} ({error})") from error
