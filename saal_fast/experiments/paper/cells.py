"""A results folder of cells. A cell is the run of one strategy with one seed.

    results/fashion-mnist/adam-cpu/saal/seed-0/                a learner's records
    results/fashion-mnist/adam-cpu-width8/saal/seed-0/         records of a run with another width than the preset's

Any number of processes may share the folder. A cell is whole, running, or missing; a killed one is resumed by the next
process that comes to it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..._utils.checks import check_whole
from ..._utils.paths import check_part, home_of
from ...learning import ActiveLearner, LockedError, Round, read
from ...learning.locks import locked
from .protocol import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from .protocol import Protocol
    from .splits import Split

RUN_ERRORS = (ValueError, RuntimeError, OSError, TypeError)
"""Errors that make one cell fail; the other cells go on."""


@dataclass(frozen=True)
class Cell:
    """The run of one strategy with one seed.

    Attributes:
        protocol: settings of the run.
        strategy: a name in `protocol.STRATEGIES`.
        seed: seed of every draw.
    """

    protocol: Protocol
    strategy: str
    seed: int

    def __str__(self) -> str:
        return f"{self.protocol.dataset}, {self.protocol.name}: {self.strategy}, seed {self.seed}"

    def folder(self, results: Path) -> Path:
        """The folder of its records.

        Raises:
            TypeError: the seed is not a whole number.
            ValueError: a name leads out of the results.
        """
        names = {"the data set": self.protocol.dataset, "the protocol": self.protocol.name, "the strategy": self.strategy}
        check_whole("seed", self.seed)
        parts = [check_part(what, name) for what, name in names.items()]
        return home_of(results).joinpath(*parts, f"seed-{self.seed}")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that all processes running the cell must share."""
        return {**asdict(self.protocol), "strategy": self.strategy}


@dataclass(frozen=True)
class Curve:
    """The learning curve of a whole cell.

    Attributes:
        labelled: number of labels that each round's model was trained on.
        accuracy: each round's test accuracy, in percent.
    """

    labelled: tuple[int, ...]
    accuracy: tuple[float, ...]

    @property
    def last(self) -> float:
        """Accuracy after the last round, in percent."""
        return self.accuracy[-1]

    @property
    def mean(self) -> float:
        """Mean accuracy over the curve, in percent."""
        return sum(self.accuracy) / len(self.accuracy)


@dataclass(frozen=True)
class Summary:
    """The state of some cells.

    Attributes:
        curves: curve of each whole cell.
        missing: cells that are not whole.
        failed: cells that failed, or whose records are damaged or another run's.
    """

    curves: dict[Cell, Curve]
    missing: list[Cell]
    failed: list[Cell]


def existing_cells(protocol: Protocol, results: Path) -> list[Cell]:
    """The cells of a protocol that have a folder, whole or not, in the order of `protocol.STRATEGIES`, then of seeds."""
    cells = []
    for strategy in STRATEGIES:
        folders = Cell(protocol, strategy, 0).folder(results).parent.glob("seed-*")
        seeds = (path.name.removeprefix("seed-") for path in folders if path.is_dir())
        cells += [Cell(protocol, strategy, seed) for seed in sorted(int(seed) for seed in seeds if seed.isdecimal())]
    return cells


def summarize(cells: Iterable[Cell], results: Path, log: Callable[[str], None]) -> Summary:
    """Reads the state of cells; logs a line for each that failed."""
    summary = Summary({}, [], [])
    for cell in cells:
        try:
            curve = read_curve(cell, results)
        except RUN_ERRORS as error:
            summary.failed.append(cell)
            log(f"{cell}: {error}")
            continue
        if curve is None:
            summary.missing.append(cell)
        else:
            summary.curves[cell] = curve
    return summary


def read_curve(cell: Cell, results: Path) -> Curve | None:
    """The curve of a cell, or None if it is not whole.

    Raises:
        ValueError: its folder holds a run of another protocol, or damaged records.
    """
    settings, rounds = read(cell.folder(results))
    if not settings:
        return None
    if settings.get("more") != cell.settings or settings.get("seed") != cell.seed:
        raise ValueError(
            f"{cell.folder(results)} holds a run of another protocol than {cell}: {settings.get('more')}, expected "
            f"{cell.settings}. Move it away, or take another results folder"
        )
    return _curve(rounds) if _is_complete(rounds, cell.protocol.rounds) else None


def run(cell: Cell, data: Split, results: Path, *, device: str = "cpu", progress: bool | None = None) -> Curve:
    """Runs a cell to its end, or resumes it, with its networks on `device`.

    Raises:
        LockedError: another process is running it.
        ValueError: its folder holds another run.
        OSError: the folder cannot be written.
    """
    folder, p = cell.folder(results), cell.protocol
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        learner = ActiveLearner(
            p.model(data, device),
            data.images,
            strategy=p.strategy(cell.strategy),
            k=p.k,
            labelled=p.start(data, cell.seed),
            candidates=p.candidates,
            train=p.training(),
            evaluate=p.evaluation(data),
            seed=cell.seed,
            folder=folder,
            settings=cell.settings,
            progress=progress,
        )
        return _curve(learner.run(lambda rows: data.labels[rows], p.rounds))


def run_all(
    cells: Iterable[Cell],
    data: Split,
    results: Path,
    *,
    log: Callable[[str], None],
    device: str = "cpu",
    progress: bool | None = None,
) -> Summary:
    """Runs the cells that are not whole yet. A cell that another process is running is left to it; a failure stops no other.

    Args:
        cells: the cells, in the order to run them.
        data: their data set.
        results: the results folder.
        log: receives a line for every cell that was run, is locked, or failed.
        device: device of the networks.
        progress: as for `saal_fast.score`.

    Returns:
        The cells' state; `missing` are those that other processes are running.
    """
    summary = Summary({}, [], [])
    locked = []
    for cell in cells:
        started = time.perf_counter()
        try:
            curve = read_curve(cell, results)
            if curve is None:
                curve = run(cell, data, results, device=device, progress=progress)
                seconds = time.perf_counter() - started
                mean = f"{curve.mean:.1f} % over the curve"
                log(f"{cell}: {curve.last:.1f} % after {curve.labelled[-1]:,} labels, {mean} ({seconds:.0f} s)")
            summary.curves[cell] = curve
        except LockedError:
            locked.append(cell)
            log(f"{cell}: another process is running it")
        except RUN_ERRORS as error:
            summary.failed.append(cell)
            log(f"{cell}: {error}")
    others = summarize(locked, results, log)
    return Summary({**summary.curves, **others.curves}, others.missing, [*summary.failed, *others.failed])


def _is_complete(rounds: list[Round], acquisitions: int) -> bool:
    """Whether all rounds are acquired and the model after the last one is trained."""
    return bool(rounds) and rounds[-1].number == acquisitions + 1 and rounds[-1].labelled > 0


def _curve(rounds: list[Round]) -> Curve:
    trained = [r for r in rounds if r.labelled]
    return Curve(tuple(r.labelled for r in trained), tuple(100 * r.metrics["accuracy"] for r in trained))
