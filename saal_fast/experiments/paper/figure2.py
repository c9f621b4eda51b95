"""Figure 2: seconds of one acquisition by every strategy, and of one training.

The paper timed an iteration on CIFAR-10. Here one process times the trainings, in which strategies train their own parts,
and the acquisitions, all by one model from the same candidates. The first run of each does not count.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Literal

import torch

from ..._utils.rng import seeded
from ...learning import Labelled, Training
from ...scoring import EngineName
from ...strategies import SAAL, Strategy, TrainingHook
from ..plots import GREY, INK, new_figure, save_png, style_axes
from .colours import colours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from .protocol import OptimizerName, Protocol
    from .splits import Split

Kind = Literal["acquisition", "training"]
ENGINES: tuple[EngineName, ...] = ("reference", "vmap", "ghost")
REPEAT_LIMIT = 10.0
"""Seconds; a first run that takes longer counts itself and is not repeated."""


@dataclass(frozen=True)
class Time:
    """The duration of one training or acquisition.

    Attributes:
        name: label in table and figure: the strategy, and its engine or optimizer.
        strategy: name in the protocol; the optimizer's of a training without a strategy.
        kind: what was timed.
        seconds: median of the repeats; of a training, one epoch's seconds times the epochs.
        samples: number of candidates scored, or of labels trained on.
    """

    name: str
    strategy: str
    kind: Kind
    seconds: float
    samples: int


def measure(
    protocol: Protocol,
    data: Split,
    strategies: Sequence[str],
    *,
    repeats: int = 3,
    device: str = "cpu",
    log: Callable[[str], None] = lambda _: None,
) -> list[Time]:
    """Times trainings and acquisitions in the middle of a run: with the labels of half of the protocol's rounds.

    Args:
        protocol: settings of the run; trainings are timed by Adam and by SAM.
        data: the data set.
        strategies: names in `protocol.STRATEGIES`. "saal" is timed by each engine.
        repeats: number of runs that count, after one that does not; a first run of more than 10 seconds is the only one.
        device: device of the networks.
        log: receives a line for every time.

    Raises:
        ValueError: unknown name.
    """
    times = []
    with seeded(0):
        for timed in _measure_each(protocol, data, strategies, repeats, device):
            log(f"{timed.kind} of {timed.samples:,}, {timed.name}: {timed.seconds:.3g} s")
            times.append(timed)
    return times


def _measure_each(protocol: Protocol, data: Split, strategies: Sequence[str], repeats: int, device: str) -> Iterator[Time]:
    labelled, unlabelled = _middle_of_run(protocol, data)
    drawn = torch.randperm(len(unlabelled), generator=torch.Generator().manual_seed(0))[: protocol.candidates]
    candidates, labels = unlabelled[drawn], len(labelled)
    models: dict[OptimizerName, nn.Module] = {name: protocol.model(data, device)() for name in ("adam", "sam")}
    for optimizer, model in models.items():
        training = replace(protocol, optimizer=optimizer).training()
        yield Time(optimizer, optimizer, "training", _train(model, labelled, training, TrainingHook()), labels)
    model = models["adam"]
    for name in strategies:
        strategy = protocol.strategy(name)
        generator = torch.Generator().manual_seed(0)
        hook = strategy.training(model, pool=unlabelled, labelled=labelled.inputs, generator=generator)
        try:
            if type(hook) is not TrainingHook:  # the strategy trains parts of its own
                seconds = _train(model, labelled, protocol.training(), hook)
                yield Time(f"adam, with {name}'s own", name, "training", seconds, labels)
        finally:
            hook.close()
        for label, variant in _variants(name, strategy):
            seconds = _select(variant, model, candidates, protocol.k, labelled.inputs, repeats)
            yield Time(label, name, "acquisition", seconds, len(candidates))


def _middle_of_run(protocol: Protocol, data: Split) -> tuple[Labelled, Tensor]:
    """The labelled samples after half of the rounds, and the unlabelled images."""
    rows, labels = replace(protocol, initial=protocol.initial + protocol.k * (protocol.rounds // 2)).start(data, 0)
    unlabelled = torch.ones(len(data.labels), dtype=torch.bool)
    unlabelled[rows] = False
    return Labelled(data.images, rows, labels), data.images[unlabelled]


def table(times: Sequence[Time]) -> str:
    """The times as a table in Markdown."""
    lines = ["| | seconds | samples |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {t.kind}: {t.name} | {t.seconds:.3g} | {t.samples:,} |" for t in times)])


def write(protocol: Protocol, times: Sequence[Time], stem: Path) -> None:
    """Writes `stem`.csv, and `stem`.png: a bar for each time, on a logarithmic scale.

    Raises:
        OSError: the files cannot be written.
    """
    with stem.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("kind", "name", "seconds", "samples"))
        writer.writerows((t.kind, t.name, f"{t.seconds:.6g}", t.samples) for t in times)

    figure = new_figure(7.5, 0.9 + 0.32 * len(times))
    ax = figure.subplots()
    places = range(len(times), 0, -1)
    pairs = zip(times, colours(t.strategy for t in times), strict=True)
    shades = [GREY if t.kind == "training" else colour for t, colour in pairs]
    ax.barh(places, [t.seconds for t in times], color=shades, height=0.7)
    for place, t in zip(places, times, strict=True):
        ax.text(1.06 * t.seconds, place, f"{t.seconds:.3g}", va="center", fontsize=8.5, color=INK)
    ax.set_xscale("log")
    ax.margins(x=0.12)
    ax.set_yticks(places, [f"{t.kind}: {t.name}" for t in times], fontsize=9)
    ax.set_xlabel(f"seconds, {torch.get_num_threads()} thread(s)", color=INK)
    style_axes(ax, f"{protocol.dataset}, {protocol.title}: one training, one acquisition", grid="x")
    save_png(figure, stem.with_suffix(".png"))


def _variants(name: str, strategy: Strategy) -> list[tuple[str, Strategy]]:
    """Label and strategy; plain SAAL once for each engine."""
    if name != "saal" or not isinstance(strategy, SAAL):
        return [(name, strategy)]
    return [(f"saal, {engine}", replace(strategy, options={**strategy.options, "engine": engine})) for engine in ENGINES]


def _select(strategy: Strategy, model: nn.Module, pool: Tensor, k: int, labelled: Tensor, repeats: int) -> float:
    model.eval()

    def once() -> float:
        started = time.perf_counter()
        strategy.select(model, pool, k, labelled=labelled, generator=torch.Generator().manual_seed(0))
        return time.perf_counter() - started

    first = once()
    return first if first > REPEAT_LIMIT else median(once() for _ in range(repeats))


def _train(model: nn.Module, labelled: Labelled, training: Training, hook: TrainingHook) -> float:
    """Seconds of all epochs: one epoch's, after another that does not count, times the number of epochs."""
    model.train()
    one = replace(training, epochs=1)
    one(model, labelled, hook)
    started = time.perf_counter()
    one(model, labelled, hook)
    return training.epochs * (time.perf_counter() - started)
