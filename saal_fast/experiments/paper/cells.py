"""A results folder of cells: one run each, of one strategy with one seed, shared by any number of processes.

    results/fashion-mnist/adam-cpu/saal/seed-0/                the records of a learner
    results/fashion-mnist/adam-cpu-width8/saal/seed-0/         of another width than the preset's

A cell is whole, under way, or not begun; a killed one is resumed by whoever comes next.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..._utils.paths import home_of
from ...learning import ActiveLearner, LockedError, Round, read
from ...learning.locks import locked
from .protocol import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from .data import Images
    from .protocol import Protocol


PROBLEMS = (ValueError, RuntimeError, OSError, TypeError)
"""What may be wrong with a cell, and nothing with the others."""


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        protocol: how it is run.
        strategy: a name of `protocol.STRATEGIES`.
        seed: of every draw.
    """

    protocol: Protocol
    strategy: str
    seed: int

    def __str__(self) -> str:
        return f"{self.protocol.dataset}, {self.protocol.name}: {self.strategy}, seed {self.seed}"

    def folder(self, results: Path) -> Path:
        """Where its records lie."""
        return home_of(results) / self.protocol.dataset / self.protocol.name / self.strategy / f"seed-{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """What all who work on the cell must agree on."""
        return {**asdict(self.protocol), "strategy": self.strategy}


@dataclass(frozen=True)
class Curve:
    """What a whole cell found.

    Attributes:
        labelled: how many labels each round's model learnt from.
        accuracy: its test accuracy, in percent.
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
class Standing:
    """How cells stand.

    Attributes:
        curves: of those that are whole.
        missing: those that are not.
        bad: those whose records cannot be read, or are another run's.
    """

    curves: dict[Cell, Curve]
    missing: list[Cell]
    bad: list[Cell]


def there(protocol: Protocol, results: Path) -> list[Cell]:
    """The cells of a protocol that have a folder, whole or not: by strategy, as in `protocol.STRATEGIES`, and seed."""
    found = []
    for strategy in STRATEGIES:
        seeds = [path.name for path in Cell(protocol, strategy, 0).folder(results).parent.glob("seed-*") if path.is_dir()]
        numbers = sorted(int(name[5:]) for name in seeds if name[5:].isdecimal())
        found += [Cell(protocol, strategy, seed) for seed in numbers]
    return found


def standing(cells: Iterable[Cell], results: Path, told: Callable[[str], None]) -> Standing:
    """How cells stand; each that is bad is told, in a line."""
    found = Standing({}, [], [])
    for cell in cells:
        try:
            one = curve(cell, results)
        except PROBLEMS as error:
            found.bad.append(cell)
            told(f"{cell}: {error}")
            continue
        if one is None:
            found.missing.append(cell)
        else:
            found.curves[cell] = one
    return found


def curve(cell: Cell, results: Path) -> Curve | None:
    """What a cell found; None as long as it is not whole.

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
    return _curve(rounds) if _whole(rounds, cell.protocol.rounds) else None


def run(cell: Cell, data: Images, results: Path, *, device: str = "cpu", progress: bool | None = None) -> Curve:
    """Runs a cell to its end, from wherever it stands, with its networks on `device`.

    Raises:
        LockedError: another process is at it.
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
    data: Images,
    results: Path,
    *,
    told: Callable[[str], None],
    device: str = "cpu",
    progress: bool | None = None,
) -> Standing:
    """Runs what is not whole yet; cells that another process is at are left to it, and one that fails stops no other.

    Args:
        cells: in the order to run them.
        data: the data set of all of them.
        results: the results folder.
        told: is told of every cell that is run, or fails, in a line.
        device: of the networks.
        progress: as for `saal_fast.score`.

    Returns:
        How they stand: missing are those that others are at, bad those that failed.
    """
    found = Standing({}, [], [])
    elsewhere = []
    for cell in cells:
        started = time.perf_counter()
        try:
            one = curve(cell, results)
            if one is None:
                one = run(cell, data, results, device=device, progress=progress)
                seconds = time.perf_counter() - started
                over = f"{one.mean:.1f} % over the curve"
                told(f"{cell}: {one.last:.1f} % after {one.labelled[-1]:,} labels, {over} ({seconds:.0f} s)")
            found.curves[cell] = one
        except LockedError:
            elsewhere.append(cell)
            told(f"{cell}: another process is at it")
        except PROBLEMS as error:
            found.bad.append(cell)
            told(f"{cell}: {error}")
    late = standing(elsewhere, results, told)
    return Standing({**found.curves, **late.curves}, late.missing, [*found.bad, *late.bad])


def _whole(rounds: list[Round], wanted: int) -> bool:
    """Whether all rounds are acquired and the model after the last is trained."""
    return bool(rounds) and rounds[-1].number == wanted + 1 and rounds[-1].labelled > 0


def _curve(rounds: list[Round]) -> Curve:
    trained = [r for r in rounds if r.labelled]
    return Curve(tuple(r.labelled for r in trained), tuple(100 * r.metrics["accuracy"] for r in trained))
