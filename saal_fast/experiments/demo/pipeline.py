"""The demonstration's steps, from the data to the pictures."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...learning import Accuracy
from ...scoring import Scores, score
from ...selection import pick
from ..networks import small_resnet
from .pictures import draw_histogram, draw_picks
from .report import Pick, table, timing_table, write_csv
from .timing import Timing, measure
from .training import train

if TYPE_CHECKING:
    from torch import nn

    from .partition import Partition

REFERENCE_TOLERANCE = 1e-3
"""Largest relative difference from the reference's scores: both round in float32, and the perturbation amplifies it."""


@dataclass(frozen=True, eq=False)
class Result:
    """The outcome of a demonstration.

    Attributes:
        picks: the chosen samples, best first.
        scores: float32 [pool].
        accuracy: the model's accuracy on the held-out samples.
        engine: the engine that scored the pool.
        difference: largest relative difference between that engine's scores and the reference's.
        timing: milliseconds a sample.
    """

    picks: list[Pick]
    scores: torch.Tensor
    accuracy: float
    engine: str
    difference: float
    timing: Timing


def run(partition: Partition) -> Result:
    """Trains a small network, scores the pool and picks from it; prints what it does.

    It writes `picks.png`, `histogram.png` and `picks.csv` into the settings' output folder.

    Args:
        partition: the samples, as `prepare` returns them.

    Raises:
        RuntimeError: the fast engine's scores differ from the reference's.
    """
    settings, data, out = partition.settings, partition.data, partition.settings.out
    print(
        f"{data.name} ({data.source}): {len(partition.labelled):,} labelled samples, "
        f"{len(partition.pool):,} in the pool, {len(partition.held_out):,} held out"
    )
    started = time.perf_counter()
    model = trained_model(partition)
    held_out = Accuracy(data.images[partition.held_out], data.labels[partition.held_out])
    accuracy = held_out(model)["accuracy"]
    print(f"trained {settings.epochs} epochs in {_since(started)}: {accuracy:.1%} right of the held-out samples")

    started = time.perf_counter()
    pool = data.images[partition.pool]
    scores = score(model, pool, settings.rho, details=True, embeddings=settings.diversity == "badge")
    print(f"scored the pool in {_since(started)} by the {scores.engine} engine")
    if scores.fallback is not None:
        print(f"  ({scores.fallback})")
    part = pool[: settings.reference_samples]
    difference = compare_with_reference(model, part, scores, settings.rho)

    chosen = pick(scores, settings.k, diversity=settings.diversity, seed=settings.seed)
    picks = _picks(partition, scores, chosen)
    print(f"\n{table(picks)}\n")

    timing = measure(model, part, settings.rho)
    print(f"milliseconds a sample, {len(part)} samples, {torch.get_num_threads()} thread(s):")
    print(f"{timing_table(timing, scores.engine)}\n")

    write_csv(picks, out / "picks.csv")
    draw_picks(picks, data.pixels(partition.pool[chosen]), out / "picks.png")
    draw_histogram(scores.perturbed_loss, chosen, out / "histogram.png")
    print(f"wrote picks.csv, picks.png and histogram.png into {out}")
    return Result(picks, scores.perturbed_loss, accuracy, scores.engine, difference, timing)


def trained_model(partition: Partition) -> nn.Module:
    """A small network, trained on the labelled samples; the settings' seed decides its weights."""
    settings, data = partition.settings, partition.data
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
        torch.manual_seed(settings.seed)
        model = small_resnet(len(data.classes), side=data.images.shape[-1])
    images, labels = data.images[partition.labelled], data.labels[partition.labelled]
    train(model, images, labels, epochs=settings.epochs, seed=settings.seed)
    return model


def compare_with_reference(model: nn.Module, part: torch.Tensor, scores: Scores, rho: float) -> float:
    """Prints and returns the largest relative difference from the reference's scores.

    Args:
        model: the scored model.
        part: the first samples of the pool, [n, C, H, W].
        scores: the scores of the whole pool.
        rho: radius of the perturbation.

    Raises:
        RuntimeError: the difference is above `REFERENCE_TOLERANCE`, or NaN.
    """
    reference = score(model, part, rho, engine="reference")
    difference = largest_difference(scores.perturbed_loss[: len(part)], reference)
    print(f"largest relative difference from the reference, on {len(part)} samples: {difference:.1e}")
    if not difference <= REFERENCE_TOLERANCE:  # NaN fails too
        raise RuntimeError(
            f"the {scores.engine} engine's scores differ from the reference's by {difference:.1e}, "
            f"expected at most {REFERENCE_TOLERANCE:.0e}: please report it"
        )
    return difference


def largest_difference(scores: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest of |scores − reference| / reference, both [N].

    A reference below a thousandth of the largest counts as that thousandth: the loss of an almost certain sample is the
    difference of nearly equal float32 numbers, so it is mostly rounding.
    """
    return float(((scores - reference).abs() / reference.clamp(min=1e-3 * float(reference.max()))).max())


def _picks(partition: Partition, scores: Scores, chosen: torch.Tensor) -> list[Pick]:
    data, indices = partition.data, partition.pool[chosen]
    columns = zip(
        indices.tolist(),
        scores.perturbed_loss[chosen].tolist(),
        scores.loss[chosen].tolist(),
        scores.grad_norm[chosen].tolist(),
        [data.classes[label] for label in scores.label[chosen].tolist()],
        [data.classes[label] for label in data.labels[indices].tolist()],
        strict=True,
    )
    return [Pick(rank, *row) for rank, row in enumerate(columns, start=1)]


def _since(started: float) -> str:
    return f"{time.perf_counter() - started:.1f} s"
