"""The two phases of a round that compute: training with evaluation, and the choice of the samples to ask for."""

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
from .labelled import Labelled, take
from .ledger import Ledger
from .store import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Train(Protocol):
    """The type of `train`: a `Training`, or any function with these arguments."""

    def __call__(self, model: nn.Module, labelled: Labelled, hook: TrainingHook, /) -> Mapping[str, float] | None:
        """Trains `model`, which is in training mode, calling the strategy's `hook`; may return numbers to record."""
        ...


@dataclass(frozen=True, eq=False)
class FitResult:
    """Result of a training.

    Attributes:
        model: the trained model, in eval mode.
        hook: state of the strategy's hook.
        training: numbers that training returned, by name.
        labelled: number of labels that the model learnt from.
    """

    model: nn.Module
    hook: dict[str, Any]
    training: dict[str, float]
    labelled: int

    @property
    def state(self) -> dict[str, Any]:
        """Content of the round's model file."""
        return {"model": self.model.state_dict(), "hook": self.hook}


@dataclass(eq=False)
class Phases:
    """The computing phases of a learner, which record their results in its ledger; arguments as in `ActiveLearner`."""

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
        self._model: tuple[str, nn.Module] | None = None  # checksum and model of the last fit
        self._hook_state: tuple[str, dict[str, Any]] | None = None  # the same checksum, and the state of the strategy's hook
        self._whole: dict[int, tuple[str, Fingerprint]] = {}  # checksums and fingerprints of files found whole, by round
        self._last_made: weakref.ref[nn.Module] | None = None  # what `factory` returned last

    @property
    def model(self) -> nn.Module:
        """The model trained last, in eval mode.

        Raises:
            ValueError: no model was trained yet.
        """
        number = max((n for n, record in enumerate(self.ledger.records) if "fit" in record), default=None)
        if number is None:
            raise ValueError("there is no model yet: fit or ask first")
        checksum = self.ledger.records[number]["fit"]["model"]
        if self._model is None or self._model[0] != checksum:
            model = self.new_model(0)
            self.load_model(model, number)
            self._model = checksum, model.eval()
        return self._model[1]

    def fit(self) -> None:
        """Trains and evaluates a model on the labelled samples, unless this round has one already.

        Raises:
            ValueError: initial labels are missing.
            DamagedRecordError: a model file that `keep_models="all"` keeps is damaged.
            OSError: a record cannot be written.
        """
        ledger = self.ledger
        for damaged in self.damaged_models():
            raise ledger.store.damaged(f"{damaged:04d}-fit.pt", "its checksum differs")
        if ledger.number == 0:
            raise ValueError(f"there are no labels yet: tell those of the {len(ledger.pending())} samples asked for first")
        if "fit" in ledger.current:
            return
        started, number = time.perf_counter(), ledger.number
        fitted = self.train_round(number)
        trained = time.perf_counter()
        metrics = self.evaluate_model(fitted.model)
        self._record_fit(number, fitted, metrics)
        seconds = {"train": trained - started, "evaluate": time.perf_counter() - trained}
        ledger.store.log(
            event="fit", round=number, labelled=fitted.labelled, training=fitted.training, metrics=metrics, seconds=seconds
        )

    def train_round(self, number: int) -> FitResult:
        """Trains the model of round `number` on the labels of the rounds before, with the next seeds of the run.

        Raises:
            DamagedRecordError: a warm start finds the model of the round before damaged or missing.
        """
        ledger = self.ledger
        previous = self.load_fit(number - 1) if self.warm_start and number > 1 else None
        rows, labels = ledger.labelled(number)
        model = self.new_model(ledger.seeds.draw())
        if previous is not None:
            self.load_model(model, number - 1, previous)
        hook = self._hook(model, number, None if previous is None else previous["hook"], self.generator(), number - 1)
        try:
            model.train()
            with seeded(ledger.seeds.draw()):
                training = _to_floats(self.train(model, Labelled(self.pool, rows, labels), hook), "train")
        finally:
            hook.close()
        return FitResult(model.eval(), hook.state_dict(), training, len(rows))

    def evaluate_model(self, model: nn.Module) -> dict[str, float]:
        """Evaluates a model: numbers by name."""
        with seeded(self.ledger.seeds.draw()):
            return _to_floats(None if self.evaluate is None else self.evaluate(model), "evaluate")

    def _record_fit(self, number: int, fitted: FitResult, metrics: dict[str, float]) -> None:
        checksum = self.ledger.store.write_tensors(f"{number:04d}-fit", fitted.state)
        content = {"labelled": fitted.labelled, "training": fitted.training, "metrics": metrics, "model": checksum}
        self.ledger.write("fit", content)
        self._model, self._hook_state = (checksum, fitted.model), (checksum, copy.deepcopy(fitted.hook))
        self.remove_old_models(number)

    def remove_old_models(self, number: int) -> None:
        """Removes the model files that `keep_models` does not keep; round `number` is the last that has one."""
        kept = {f"{n:04d}-fit.pt" for n in (number - 1, number)}  # for a warm start, or after a rewind of this round
        for file in self.ledger.store.names() if self.keep_models == "last" else ():
            if file.endswith(".pt") and file not in kept:
                self.ledger.store.remove(file)

    def choose(self) -> None:
        """Lets the strategy choose from the unlabelled samples, if there are any.

        Raises:
            TypeError: the strategy returns no `Selection`.
            ValueError: the selection does not hold k different positions.
            OSError: the record cannot be written.
        """
        ledger, started = self.ledger, time.perf_counter()
        rest = ledger.unlabelled()
        if not len(rest):
            return
        model, labelled = self.model, take(self.pool, ledger.labelled()[0])
        self._restore_strategy(model)
        generator = self.generator()
        if self.candidates is not None and self.candidates < len(rest):
            rest = rest[
                torch.randperm(len(rest), generator=generator, device=generator.device)[: self.candidates].sort().values
            ]
        k = min(self.k, len(rest))
        with seeded(ledger.seeds.draw()):
            chosen = self.strategy.select(model, take(self.pool, rest), k, labelled=labelled, generator=self.generator())
        _check_selection(chosen, k, len(rest), self.strategy.name)
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
        """Drops the model and the state of the strategy's hook, so that they are read from their files when needed next."""
        self._model = self._hook_state = None

    def _restore_strategy(self, model: nn.Module) -> None:
        """Loads what the strategy learnt in this fit: another process may have trained it, or another learner used it."""
        ledger, cached = self.ledger, self._hook_state
        if cached is not None and cached[0] == ledger.current["fit"]["model"]:
            state = cached[1]
        else:
            state = self.load_fit(ledger.number)["hook"]
        if state:
            with seeded(0):  # a dataset may draw from the global generators
                self._hook(model, ledger.number, state, torch.Generator("cpu"), ledger.number).close()

    def _hook(
        self, model: nn.Module, number: int, state: dict[str, Any] | None, generator: torch.Generator, source: int
    ) -> TrainingHook:
        """The strategy's hook for round `number`, with its `state` of round `source`."""
        rows, unlabelled = self.ledger.labelled(number)[0], self.ledger.unlabelled(number)
        hook = self.strategy.training(
            model, pool=take(self.pool, unlabelled), labelled=take(self.pool, rows), generator=generator
        )
        if state:
            try:
                hook.load_state_dict(state)
            except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
                hook.close()
                why = f"the state in it is not that of the strategy {self.strategy.name!r}: {error!r}"
                raise self.ledger.store.damaged(f"{source:04d}-fit.pt", why) from error
        return hook

    def new_model(self, seed: int) -> nn.Module:
        """A new model, its weights drawn by a seed.

        Raises:
            TypeError: `factory` makes no module.
            ValueError: it makes the same one again.
        """
        with seeded(seed):
            model = self.factory()
        if not isinstance(model, nn.Module):
            raise TypeError(f"expected model to make an nn.Module, it made {type(model).__name__}")
        if self._last_made is not None and self._last_made() is model:
            raise ValueError(
                "expected model to make a new model each time, got the same object as before: a round would go on from the "
                "weights of the last. Build it inside the function; warm_start=True goes on from them"
            )
        self._last_made = weakref.ref(model)
        return model

    def load_fit(self, number: int) -> dict[str, Any]:
        """Reads the file of a fit: the state of the `model` and of the strategy's `hook`.

        Raises:
            DamagedRecordError: the file is damaged or missing; the message says how to recover.
        """
        name, checksum = f"{number:04d}-fit", self.ledger.records[number]["fit"]["model"]
        content = self.ledger.store.read_tensors(name, checksum)
        if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in ("model", "hook")):
            raise self.ledger.store.damaged(f"{name}.pt", "it does not hold the states of a model and of a strategy's hook")
        return content

    def load_model(self, model: nn.Module, number: int, content: dict[str, Any] | None = None) -> None:
        """Loads what the fit of a round has trained into a model.

        Args:
            model: a new model.
            number: the round.
            content: what `load_fit` gives; None to read it.

        Raises:
            DamagedRecordError: the file is damaged or missing, or its parameters are not the model's.
        """
        content = self.load_fit(number) if content is None else content
        try:
            model.load_state_dict(content["model"])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"it does not fit the {type(model).__name__} that model= makes: {error}"
            raise self.ledger.store.damaged(f"{number:04d}-fit.pt", why) from error

    def damaged_models(self) -> list[int]:
        """The rounds whose model files are damaged, where `keep_models` keeps all; a file is read once after each change."""
        found = []
        for number, record in enumerate(self.ledger.records if self.keep_models == "all" else ()):
            if "fit" not in record:
                continue
            name, checksum = f"{number:04d}-fit", record["fit"]["model"]
            state = checksum, self.ledger.store.fingerprint(f"{name}.pt")
            if self._whole.get(number) == state:
                continue
            if self.ledger.store.is_damaged(name, checksum):
                found.append(number)
            else:
                self._whole[number] = state
        return found

    def generator(self) -> torch.Generator:
        """A generator with the next seed of the run."""
        return torch.Generator("cpu").manual_seed(self.ledger.seeds.draw())


def _to_floats(values: Mapping[str, float] | None, source: str) -> dict[str, float]:
    """Converts the numbers that function `source` returned to Python floats by name."""
    try:
        return {str(name): float(value) for name, value in (values or {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise TypeError(f"expected {source} to give numbers by name, or None; got {values!r} ({error})") from error


def _check_selection(chosen: Any, k: int, size: int, name: str) -> None:
    """Raises unless strategy `name` chose k different positions below `size`."""
    if not isinstance(chosen, Selection):
        raise TypeError(f"expected a Selection from {name}, got {type(chosen).__name__}")
    picks = chosen.indices.tolist()
    if len(set(picks)) != k or len(picks) != k or not all(0 <= i < size for i in picks):
        raise ValueError(f"expected {k} different positions in [0, {size}) from {name}, got {picks}")
