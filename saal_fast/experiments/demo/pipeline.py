"""The demonstration from data to pictures."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import saal_fast

from ...selection import pick
from .model import small_resnet
from .plots import plot_histogram, plot_picks
from .report import Pick, table, timing_table, write_csv
from .timing import Timing, measure
from .train import accuracy, train

if TYPE_CHECKING:
    from torch import nn

    from ...scoring import Scores
    from .task import Task

# Both engines round in float32, and the perturbation's direction magnifies what they round.
TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Result:
    """What a demonstration found.

    Attributes:
        picks: the chosen samples, best first.
        scores: float32 [pool].
        accuracy: the model's, on the held-out samples.
        engine: the engine that scored the pool.
        difference: the largest relative difference between that engine's scores and the reference's.
        timing: milliseconds a sample.
    """

    picks: list[Pick]
    scores: torch.Tensor
    accuracy: float
    engine: str
    difference: float
    timing: Timing


def run(task: Task) -> Result:
    """Train a small network, score the pool, pick from it, and tell of it in print and in files.

    Writes `picks.png`, `histogram.png` and `picks.csv` into the settings' output folder.

    Args:
        task: what `prepare` made of the settings.

    Raises:
        RuntimeError: the fast engine's scores are not the reference's.
    """
    settings, data, out = task.settings, task.data, task.settings.out
    print(
        f"{data.name} ({data.source}): {len(task.labelled):,} labelled samples, "
        f"{len(task.pool):,} in the pool, {len(task.held_out):,} held out"
    )

    start = time.perf_counter()
    model = _trained_model(task)
    right = accuracy(model, data.images[task.held_out], data.labels[task.held_out])
    print(f"trained {settings.epochs} epochs in {_since(start)}: {right:.1%} right of the held-out samples")

    start = time.perf_counter()
    pool = data.images[task.pool]
    scored = saal_fast.score(model, pool, settings.rho, details=True, embeddings=settings.diversity == "badge")
    print(f"scored the pool in {_since(start)} by the {scored.engine} engine")
    if scored.fallback is not None:
        print(f"  ({scored.fallback})")

    part = pool[: settings.reference_samples]
    reference = saal_fast.score(model, part, settings.rho, engine="reference")
    difference = largest_difference(scored.perturbed_loss[: len(part)], reference)
    print(f"largest relative difference from the reference, on {len(part)} samples: {difference:.1e}")
    if not difference <= TOLERANCE:  # NaN fails too
        raise RuntimeError(
            f"the {scored.engine} engine's scores differ from the reference's by {difference:.1e}, "
            f"expected at most {TOLERANCE:.0e}: please report it"
        )

    chosen = pick(scored, settings.k, diversity=settings.diversity, seed=settings.seed)
    picks = _picks(task, scored, chosen)
    print(f"\n{table(picks)}\n")

    timing = measure(model, part, settings.rho)
    print(f"milliseconds a sample, {len(part)} samples, {torch.get_num_threads()} thread(s):")
    print(f"{timing_table(timing, scored.engine)}\n")

    write_csv(picks, out / "picks.csv")
    plot_picks(picks, data.pixels(task.pool[chosen]), out / "picks.png")
    plot_histogram(scored.perturbed_loss, chosen, out / "histogram.png")
    print(f"wrote picks.csv, picks.png and histogram.png into {out}")
    return Result(picks, scored.perturbed_loss, right, scored.engine, difference, timing)


def largest_difference(scores: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest of |scores − reference| / reference, both [N].

    References below a thousandth of the largest count as that much: the loss of a nearly certain sample is
    a difference of nearly equal float32 numbers, and mostly rounding.
    """
    return float(((scores - reference).abs() / reference.clamp(min=1e-3 * float(reference.max()))).max())


def _trained_model(task: Task) -> nn.Module:
    settings, data = task.settings, task.data
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
        torch.manual_seed(settings.seed)
        model = small_resnet(len(data.classes), side=data.images.shape[-1])
    images, labels = data.images[task.labelled], data.labels[task.labelled]
    train(model, images, labels, epochs=settings.epochs, seed=settings.seed)
    return model


def _picks(task: Task, scored: Scores, chosen: torch.Tensor) -> list[Pick]:
    data, places = task.data, task.pool[chosen]
    columns = zip(
        places.tolist(),
        scored.perturbed_loss[chosen].tolist(),
        scored.loss[chosen].tolist(),
        scored.grad_norm[chosen].tolist(),
        [data.classes[label] for label in scored.label[chosen].tolist()],
        [data.classes[label] for label in data.labels[places].tolist()],
        strict=True,
    )
    return [Pick(rank, *row) for rank, row in enumerate(columns, start=1)]


def _since(start: float) -> str:
    return f"{time.perf_counter() - start:.1f} s"
