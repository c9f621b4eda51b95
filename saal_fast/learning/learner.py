"""Algorithm 1 of the paper, round by round: train, ask, tell. Every phase is on disk when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from .._utils.checks import check_whole, is_whole
from .._utils.progress import bar
from .._utils.rng import seeded
from ..strategies import Strategy, make
from .answers import correct, parse_answers, tell
from .checks import check_counts, check_options, check_parts
from .labelled import pool_size
from .ledger import Ledger, Round
from .phases import Phases, Train
from .retraining import retrain
from .seeds import Seeds
from .settings import run_settings
from .store import Store
from .train import Training

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping


class ActiveLearner:
    """Runs active learning round by round, by a program (`run`) or at a person's pace (`ask`, `tell`).

    With a folder, each phase (training, asking, telling) is on disk when it is over. A new learner with the same arguments
    resumes there, also after a kill, and reaches the same result bit for bit, because it repeats an interrupted phase with
    the same seeds. (This needs operations that repeat: the same machine and number of threads; on a GPU torch's
    deterministic algorithms and a strategy with a fixed batch size.)

    Args:
        model: makes a new model, on its device, with weights from torch's global generator.
        pool: samples that can be indexed: a tensor, a mapping of tensors, a dataset, a list. Labels in it are never read.
        strategy: chooses which samples to label next; an object, or a name for `saal_fast.strategies.make`.
        k: samples per round; the last round may have fewer.
        labelled: positions in the pool, int64 [n], and their labels, [n, ...], to begin with.
        initial: instead of `labelled`, number of samples to draw at random and ask for first.
        candidates: number of unlabelled samples, drawn at random each round, that the strategy chooses from (Algorithm 1,
            line 3; the paper: 2,000), k or more; None for all.
        train: `Training` with the paper's defaults, or any function of the type `Train`. The global generators of torch,
            NumPy and Python are seeded for each call.
        evaluate: computes numbers by name from a trained model, such as `Accuracy`; or None.
        warm_start: whether to start from the last round's weights instead of new ones.
        seed: seed of every draw, in [0, 2⁶³).
        folder: folder of the records, "~" for the user's home; None for no records on disk.
        keep_models: "last" to keep the models of the last two rounds, or "all".
        settings: further settings that every learner on this folder must share; content that JSON can hold.
        rewrite_settings: whether to write a damaged or missing settings.json again from these arguments, which then must be
            the run's own.
        progress: as for `saal_fast.score`.

    Raises:
        TypeError: an argument is of another type than expected.
        ValueError: an argument is out of range, or the folder holds a run with other settings.
        DamagedRecordError: a record in the folder is damaged or missing; the message says how to recover.
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
        folder: str | bytes | os.PathLike[str] | None = None,
        keep_models: Literal["last", "all"] = "last",
        settings: Mapping[str, Any] | None = None,
        rewrite_settings: bool = False,
        progress: bool | None = None,
    ) -> None:
        size = pool_size(pool)
        check_counts(size, k, initial, candidates)
        check_parts(model, strategy, train, evaluate)
        check_options(warm_start, rewrite_settings, labelled, initial, keep_models)
        self._progress = progress
        k, seed, initial, candidates = map(_as_int, (k, seed, initial, candidates))
        self._start = initial if labelled is None else parse_answers(*labelled, size=size)
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
        self._begin_or_resume(run_settings(self._phases, seed, self._start, settings), rewrite_settings)

    # --- state ------------------------------------------------------------------------------------

    @property
    def rounds(self) -> list[Round]:
        """The rounds so far; the last may be unfinished."""
        return self._ledger.rounds()

    @property
    def labelled(self) -> tuple[Tensor, Tensor]:
        """Positions, int64 [n], and labels, [n, ...], for the next training, in the order they were asked for."""
        return self._ledger.labelled()

    @property
    def acquired(self) -> int:
        """Number of complete rounds, without the initial one."""
        return max(0, self._ledger.number - 1)

    @property
    def model(self) -> nn.Module:
        """The model trained last, in eval mode.

        Raises:
            ValueError: no model was trained yet.
        """
        return self._phases.model

    # --- actions ----------------------------------------------------------------------------------

    def fit(self) -> Round:
        """Trains and evaluates a model on the labelled samples, unless this round has one already.

        Returns:
            The round, with its metrics.

        Raises:
            ValueError: initial labels are missing.
            LockedError: another process is at work in the folder.
            OSError: the record cannot be written; all before it are intact.
        """
        with self._ledger.store.locked():
            self._catch_up()
            self._phases.fit()
            return self._ledger.round(self._ledger.number)

    def ask(self) -> Tensor:
        """Chooses samples to label, after training if needed; while labels are missing, returns the samples without one.

        Returns:
            Positions in the pool, the best first; int64 [k], or fewer if fewer unlabelled samples are left.

        Raises:
            LockedError: another process is at work in the folder.
            OSError: the record cannot be written; all before it are intact.
        """
        with self._ledger.store.locked():
            self._catch_up()
            if "ask" not in self._ledger.current:
                self._phases.fit()
                self._phases.choose()
            return torch.tensor(self._ledger.pending(), dtype=torch.int64, device="cpu")

    def tell(self, indices: Any, labels: Any) -> None:
        """Records labels of samples that were asked for, all at once or in parts.

        Args:
            indices: positions in the pool; [n].
            labels: their labels, numbers or arrays of one shape; [n, ...].

        Raises:
            TypeError: a label is not a number.
            ValueError: a sample was not asked for, has a label already or is repeated; the numbers of labels and samples
                differ; or a label is not finite, or has another shape or type than earlier labels.
            LockedError: another process is at work in the folder.
            OSError: the record cannot be written; all before it are intact.
        """
        rows, answers = parse_answers(indices, labels)
        with self._ledger.store.locked():
            self._catch_up()
            tell(self._ledger, rows, answers)

    def correct(self, indices: Any, labels: Any) -> None:
        """Replaces labels that no model has learnt from yet.

        If all labels are replaced, they may have another type and shape than before.

        Args:
            indices: positions in the pool; [n].
            labels: their new labels, of the same type and shape as the labels that stay; [n, ...].

        Raises:
            TypeError: a label is not a number.
            ValueError: a sample has no label or is repeated, a model has learnt from its label, or labels do not match.
            LockedError: another process is at work in the folder.
            OSError: the record cannot be written; all before it are intact.
        """
        rows, answers = parse_answers(indices, labels, size=self._ledger.size)
        with self._ledger.store.locked():
            self._catch_up()
            correct(self._ledger, rows, answers)

    def retrain(self, *, exact: bool = True) -> list[int]:
        """Trains the last model again if its file is damaged or missing, and first those that its warm start needs.

        With `keep_models="all"` it trains the others whose files are damaged as well.

        Other records stay as they are. The same labels and seeds give the same model if the operations repeat, and the
        result is compared with the record.

        Args:
            exact: False to accept a model that differs from the record (made on another machine, say) and to record it,
                with its metrics, instead.

        Returns:
            The numbers of the rounds whose models were trained; empty if no file was lost.

        Raises:
            DamagedRecordError: a model differs from the record.
            LockedError: another process is at work in the folder.
            OSError: a file cannot be written.
        """
        with self._ledger.store.locked():
            self._catch_up()
            return retrain(self._phases, exact=exact)

    def run(self, oracle: Callable[[Tensor], Any], rounds: int) -> list[Round]:
        """Asks and tells until `rounds` rounds are complete or all samples labelled, then trains once more (Algorithm 1).

        Args:
            oracle: returns the labels [n, ...] of positions in the pool, int64 [n]. After a kill in this call it gets the
                same positions again. The global generators are seeded for each call.
            rounds: number of rounds in all, including those before a resume.

        Returns:
            All rounds; the last one is trained and asks for nothing.

        Raises:
            TypeError: rounds is not a whole number, or oracle cannot be called.
            ValueError: rounds < 0; and as `tell`.
        """
        check_whole("rounds", rounds, 0)
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

    def _begin_or_resume(self, settings: dict[str, Any], rewrite: bool) -> None:
        with self._ledger.store.locked():
            existed = self._ledger.check_settings(settings, rewrite=rewrite)
            self._catch_up()
            if existed:
                self._ledger.store.log(event="resume", round=self._ledger.number)

    def _catch_up(self) -> None:
        """Reads new records from the folder, and writes the initial ones if the run is new or was rewound to its start."""
        ledger = self._ledger
        ledger.catch_up()
        if not isinstance(self._start, int):
            if ledger.number == 0:
                rows, labels = self._start
                ledger.write("ask", {"indices": rows, "scores": []})
                ledger.write("tell", {"indices": rows, "labels": labels})
        elif not ledger.records[0]:
            drawn = torch.randperm(ledger.size, generator=self._phases.generator(), device="cpu")[: self._start]
            ledger.write("ask", {"indices": drawn.tolist(), "scores": [], "oracle": ledger.seeds.draw()})


def _as_int(count: Any) -> Any:
    """A whole number as Python's int, which JSON can hold where it lacks NumPy's; anything else as it is."""
    return int(count) if is_whole(count) else count
