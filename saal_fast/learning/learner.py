"""Algorithm 1 of the paper: train, ask, tell, again; every phase on disk when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from .._utils.checks import is_whole
from .._utils.progress import bar
from .._utils.rng import seeded
from ..strategies import Strategy, make
from .answers import correct, tell
from .checks import check_counts, check_options, check_parts, settings_of
from .ledger import Ledger, Round
from .phases import Phases, Train
from .retraining import retrain
from .rows import length, pairs
from .seeds import Seeds
from .store import Store
from .train import Training

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping


class ActiveLearner:
    """Active learning, one round after the other, by a program (`run`) or at a person's pace (`ask`, `tell`).

    With a folder, each phase (training, asking, telling) is on disk when it is over. A learner made anew with the same
    arguments goes on from there, also after a kill, with the same result bit for bit: what was cut off is done again from
    the same seeds. (As far as the operations themselves repeat: the same machine and number of threads; on a GPU torch's
    deterministic algorithms and a strategy with a fixed batch size.)

    Args:
        model: makes a new model, on its device, with weights from torch's global generator.
        pool: samples that can be indexed: a tensor, a mapping of tensors, a dataset, a list. Labels in it are never read.
        strategy: what to label next; an object, or a name for `saal_fast.strategies.make`.
        k: samples a round; the last round may have fewer.
        labelled: positions in the pool, int64 [n], and labels, [n, ...], to begin with.
        initial: in place of `labelled`, how many samples drawn at random are asked for first.
        candidates: how many unlabelled samples, drawn at random each round, the strategy chooses from (Algorithm 1, line 3;
            the paper: 2,000), k or more; None for all.
        train: `Training` with the paper's defaults, or any function like `Train`. It runs under a seed of its own in the
            global generators of torch, NumPy and Python.
        evaluate: gives numbers by name, such as `Accuracy`, of a trained model; or None.
        warm_start: go on from the last round's weights, instead of new ones.
        seed: of every draw, in [0, 2⁶³).
        folder: to keep records in, "~" for the user's home; None for none.
        keep_models: "last" for the models of the last round and the one before, or "all" rounds' models.
        settings: anything more that a run in this folder must share; what JSON can hold.
        rewrite_settings: where the folder's settings.json is damaged or gone, write it anew from these arguments, which are
            then taken to be the run's own.
        progress: as for `saal_fast.score`.

    Raises:
        TypeError: an argument is of another type than expected.
        ValueError: an argument is out of range, or the folder holds a run of other settings.
        DamagedRecordError: a record in the folder is not what was written; the message says how to go back.
        LockedError: another process is at work in the folder.
        OSError: the folder cannot be read or written.
    """

    def __init__(
        self,
        model: Callable[[], nn.Module],
        pool: Any,
        *,
        strategy: Strategy | str = "saal",
        k: int = 10,
        labelled: tuple[Any, Any] | None = None,
        initial: int | None = None,
        candidates: int | None = None,
        train: Train | None = None,
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
        warm_start: bool = False,
        seed: int = 0,
        folder: str | os.PathLike[str] | None = None,
        keep_models: Literal["last", "all"] = "last",
        settings: Mapping[str, Any] | None = None,
        rewrite_settings: bool = False,
        progress: bool | None = None,
    ) -> None:
        size = length(pool)
        check_counts(size, k, initial, candidates)
        check_parts(model, strategy, train, evaluate)
        check_options(warm_start, rewrite_settings, labelled, initial, keep_models)
        self._progress = progress
        k, seed = int(k), int(seed) if is_whole(seed) else seed  # NumPy's own cannot be written down
        initial, candidates = (None if count is None else int(count) for count in (initial, candidates))
        start = None if labelled is None else pairs(*labelled, size=size)
        self._start, self._initial = start, initial
        self._ledger = Ledger(Store(folder), Seeds(seed), size)
        self._phases = Phases(
            factory=model,
            pool=pool,
            strategy=make(strategy) if isinstance(strategy, str) else strategy,
            k=k,
            candidates=candidates,
            train=Training(progress=progress) if train is None else train,
            evaluate=evaluate,
            warm_start=warm_start,
            keep_models=keep_models,
            ledger=self._ledger,
        )
        with self._ledger.store.locked():
            mine = settings_of(self._phases, seed, initial if start is None else start, settings)
            if self._ledger.settle(mine, rewrite=rewrite_settings):
                self._catch_up()
                self._ledger.store.log(event="resume", round=self._ledger.number)
            self._catch_up()

    # --- what there is ----------------------------------------------------------------------------

    @property
    def rounds(self) -> list[Round]:
        """The rounds so far; the last may be under way."""
        return self._ledger.rounds()

    @property
    def labelled(self) -> tuple[Tensor, Tensor]:
        """Positions and labels learnt from in the next training: int64 [n] and [n, ...], in the order asked."""
        return self._ledger.labelled()

    @property
    def acquired(self) -> int:
        """How many rounds are asked and told in full, the initial one not counted."""
        return max(0, self._ledger.number - 1)

    @property
    def model(self) -> nn.Module:
        """The model trained last, in eval mode.

        Raises:
            ValueError: none was trained yet.
        """
        return self._phases.model

    # --- what it does -----------------------------------------------------------------------------

    def fit(self) -> Round:
        """Trains and evaluates a model on what is labelled, unless that is done already.

        Returns:
            The round, with its metrics.

        Raises:
            ValueError: the initial labels are not all told.
            LockedError: another process is at work in the folder.
            OSError: the record cannot be written; all before it are intact.
        """
        with self._ledger.store.locked():
            self._catch_up()
            self._phases.fit()
            return self._ledger.round(self._ledger.number)

    def ask(self) -> Tensor:
        """What to label next: trains if need be, then chooses. Asked again before all is told, it gives what is left.

        Returns:
            Positions in the pool, the best first; int64 [k], fewer where fewer are left, none where all is labelled.

        Raises:
            LockedError: another process is at work in the folder.
            OSError: the record cannot be written; all before it are intact.
        """
        with self._ledger.store.locked():
            self._catch_up()
            if "ask" not in self._ledger.current:
                self._phases.fit()
                self._phases.choose()
            return torch.tensor(self._ledger.pending(), dtype=torch.int64)

    def tell(self, indices: Any, labels: Any) -> None:
        """Takes labels of samples that were asked for, all at once or in parts.

        Args:
            indices: positions in the pool; [n].
            labels: their labels, numbers or arrays of one shape; [n, ...].

        Raises:
            TypeError: a label is no number.
            ValueError: a sample was not asked for, is told already or twice; there are more or fewer labels than samples, or
                some that are not finite, or of another shape or kind than those told before.
            LockedError: another process is at work in the folder.
            OSError: the record cannot be written; all before it are intact.
        """
        told, answers = pairs(indices, labels)
        with self._ledger.store.locked():
            self._catch_up()
            tell(self._ledger, told, answers)

    def correct(self, indices: Any, labels: Any) -> None:
        """Puts other labels in place of those told, of samples that no model has learnt from yet.

        Given for all samples told, they may be of another kind and shape than before.

        Args:
            indices: positions in the pool; [n].
            labels: their labels, of the kind of those that stay; [n, ...].

        Raises:
            TypeError: a label is no number.
            ValueError: a sample is not told or twice, a model has learnt from its label, or labels are unlike the others.
            LockedError: another process is at work in the folder.
            OSError: the record cannot be written; all before it are intact.
        """
        rows, answers = pairs(indices, labels, size=self._ledger.size)
        with self._ledger.store.locked():
            self._catch_up()
            correct(self._ledger, rows, answers)

    def retrain(self, *, exact: bool = True) -> list[int]:
        """Trains the last model anew if its file is gone or damaged, and with a warm start those before it that it needs.

        Records, labels too, are as they were. The same labels and seeds give the same model, as far as the operations
        repeat; which is checked.

        Args:
            exact: False takes a model that came out otherwise (on another machine, say) in place of the one recorded, with
                its metrics.

        Returns:
            The rounds whose models were trained; none where all is there.

        Raises:
            DamagedRecordError: a model came out otherwise than recorded.
            LockedError: another process is at work in the folder.
            OSError: a file cannot be written.
        """
        with self._ledger.store.locked():
            self._catch_up()
            return retrain(self._phases, exact=exact)

    def run(self, oracle: Callable[[Tensor], Any], rounds: int) -> list[Round]:
        """Asks and tells until `rounds` rounds are acquired, or all is labelled; then trains once more (Algorithm 1).

        Args:
            oracle: gives the labels [n, ...] of positions in the pool, int64 [n]. Killed inside it, it is asked the same
                again. It runs under a seed of its own.
            rounds: how many acquisitions in all, those of before a resume counted.

        Returns:
            All rounds; the last is trained and has asked nothing.
        """
        if not is_whole(rounds) or rounds < 0:
            raise ValueError(f"expected rounds to be a whole number >= 0, got {rounds!r}")
        if not callable(oracle):
            raise TypeError(f"expected oracle to be a function of positions, got {oracle!r}")
        with self._ledger.store.locked():
            self._catch_up()
        with bar(rounds, self._progress, "rounds", " rounds") as shown:
            shown.update(min(self.acquired, rounds))
            while self._ledger.number == 0 or self.acquired < rounds:
                first = self._ledger.number == 0
                indices = self.ask()
                if not len(indices):
                    break
                with seeded(self._ledger.current["ask"].get("oracle", 0)):
                    labels = oracle(indices.clone())
                self.tell(indices, labels)
                shown.update(not first)
        self.fit()
        return self.rounds

    def _catch_up(self) -> None:
        """Reads what is new in the folder, and begins the run where it has not begun, or was rewound to its beginning."""
        ledger = self._ledger
        ledger.catch_up()
        if self._start is not None and ledger.number == 0:
            ledger.write("ask", {"indices": self._start[0], "scores": []})
            ledger.write("tell", {"indices": self._start[0], "labels": self._start[1]})
        elif self._initial is not None and not ledger.records[0]:
            drawn = torch.randperm(ledger.size, generator=self._phases.generator())[: self._initial]
            ledger.write("ask", {"indices": drawn.tolist(), "scores": [], "oracle": ledger.seeds.draw()})
