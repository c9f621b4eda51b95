"""Figure 2: seconds of one acquisition by every strategy, and of one training.

The paper timed an iteration on CIFAR-10. Here, in one process and on one model: first the trainings, which leave the
strategies what they learn of their own, then the acquisitions of the same candidates. The first run of each is not counted.
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
from .plots import DPI, GREY, INK, colours, figure, tidy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from .data import Images
    from .protocol import Protocol

Kind = Literal["acquisition", "training"]
ENGINES: tuple[EngineName, ...] = ("reference", "vmap", "ghost")
LONG = 10.0
"""Seconds of a first run above which it is counted itself, and not repeated."""


@dataclass(frozen=True)
class Time:
    """What one thing took.

    Attributes:
        name: of the strategy and what else there is to say.
        strategy: its name in the protocol; of a training without one, its optimiser.
        kind: what was timed.
        seconds: median of the repeats; of a training, the epochs' number times the seconds of one.
        samples: candidates scored, or labels learnt from.
    """

    name: str
    strategy: str
    kind: Kind
    seconds: float
    samples: int


def measure(
    protocol: Protocol,
    data: Images,
    strategies: Sequence[str],
    *,
    repeats: int = 3,
    device: str = "cpu",
    told: Callable[[str], None] = lambda _: None,
) -> list[Time]:
    """Times trainings and acquisitions amid a run: with the labels of half of the protocol's rounds.

    Args:
        protocol: of the run; trainings are timed by Adam and by SAM.
        data: what to choose from.
        strategies: names of `protocol.STRATEGIES`. "saal" is timed by each engine.
        repeats: runs that count, after one that does not; a first run above 10 seconds counts and is the only one.
        device: of the networks.
        told: is told of every time, in a line.

    Raises:
        ValueError: an unknown name.
    """
    rows, _ = replace(protocol, initial=protocol.initial + protocol.k * (protocol.rounds // 2)).start(data, 0)
    labelled = Labelled(data.images, rows, data.labels[rows])
    rest = torch.ones(len(data.labels), dtype=torch.bool)
    rest[rows] = False
    unlabelled = data.images[rest]
    drawn = torch.randperm(len(unlabelled), generator=torch.Generator().manual_seed(0))[: protocol.candidates]
    candidates = unlabelled[drawn]
    times: list[Time] = []

    def keep(name: str, strategy: str, kind: Kind, seconds: float, samples: int) -> None:
        times.append(Time(name, strategy, kind, seconds, samples))
        told(f"{kind} of {samples:,}, {name}: {seconds:.3g} s")

    with seeded(0):
        models = {optimizer: protocol.model(data, device)() for optimizer in ("adam", "sam")}
        for optimizer in ("adam", "sam"):
            one = replace(protocol, optimizer=optimizer).training()
            keep(optimizer, optimizer, "training", _train(models[optimizer], labelled, one, TrainingHook()), len(rows))
        for name in strategies:
            strategy = protocol.strategy(name)
            model = models["adam"]
            generator = torch.Generator().manual_seed(0)
            hook = strategy.training(model, pool=unlabelled, labelled=labelled.inputs, generator=generator)
            try:
                if type(hook) is not TrainingHook:  # one that does something
                    seconds = _train(model, labelled, protocol.training(), hook)
                    keep(f"adam, with {name}'s own", name, "training", seconds, len(rows))
            finally:
                hook.close()
            for label, variant in _variants(name, strategy):
                seconds = _select(variant, model, candidates, protocol.k, labelled.inputs, repeats)
                keep(label, name, "acquisition", seconds, len(candidates))
    return times


def table(times: Sequence[Time]) -> str:
    """The times as lines of Markdown."""
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

    drawn = figure(7.5, 0.9 + 0.32 * len(times))
    ax = drawn.subplots()
    places = range(len(times), 0, -1)
    shades = [
        GREY if t.kind == "training" else shade for t, shade in zip(times, colours([t.strategy for t in times]), strict=True)
    ]
    ax.barh(places, [t.seconds for t in times], color=shades, height=0.7)
    for place, t in zip(places, times, strict=True):
        ax.text(1.06 * t.seconds, place, f"{t.seconds:.3g}", va="center", fontsize=8.5, color=INK)
    ax.set_xscale("log")
    ax.margins(x=0.12)
    ax.set_yticks(places, [f"{t.kind}: {t.name}" for t in times], fontsize=9)
    ax.set_xlabel(f"seconds, {torch.get_num_threads()} thread(s)", color=INK)
    title = f"{protocol.dataset}, {protocol.title}: one training, one acquisition"
    ax.set_title(title, fontsize=12, color=INK, loc="left")
    tidy(ax, "x")
    drawn.savefig(stem.with_suffix(".png"), dpi=DPI, format="png")


def _variants(name: str, strategy: Strategy) -> list[tuple[str, Strategy]]:
    """The strategy itself; of plain SAAL, one for each engine."""
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
    return first if first > LONG else median(once() for _ in range(repeats))


def _train(model: nn.Module, labelled: Labelled, training: Training, hook: TrainingHook) -> float:
    """Seconds of all epochs, by one of them, after another that is not counted."""
    model.train()
    one = replace(training, epochs=1)
    one(model, labelled, hook)
    started = time.perf_counter()
    one(model, labelled, hook)
    return training.epochs * (time.perf_counter() - started)
