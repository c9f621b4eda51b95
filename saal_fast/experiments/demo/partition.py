"""The active-learning task: which samples are labelled, which form the pool, which are held out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..datasets import ImageData, balanced, load

if TYPE_CHECKING:
    from pathlib import Path

    from .settings import Settings

USUAL_POOL = 2000
MOST_HELD_OUT = 1000


@dataclass(frozen=True, eq=False)
class Task:
    """A data set and three disjoint sets of indices into it.

    Attributes:
        settings: what was asked for.
        data: the images and their labels.
        labelled: int64 [labels], as many of every class as of any other, or one fewer.
        pool: int64 [pool], drawn evenly from the rest; their labels are only shown, never used.
        held_out: int64, to measure accuracy on: a fifth of the data, at most 1,000.
    """

    settings: Settings
    data: ImageData
    labelled: torch.Tensor
    pool: torch.Tensor
    held_out: torch.Tensor


def prepare(settings: Settings) -> Task:
    """Load the data, draw the three sets and make the output folder: all that can fail by what was asked.

    Raises:
        ValueError: the data hold fewer samples, or more classes, than the settings allow for, or are corrupt.
        OSError: the data lie nowhere, or the output folder cannot be written.
    """
    data = load(settings.data, settings.data_root)
    held_out, labelled, pool = _draw(data.labels, len(data.classes), settings)
    _make_writable(settings.out)
    return Task(settings=settings, data=data, labelled=labelled, pool=pool, held_out=held_out)


def _draw(labels: torch.Tensor, classes: int, settings: Settings) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Held-out, labelled and pool indices, a shuffle by `settings.seed` cut into three."""
    if settings.labels < classes:
        raise ValueError(f"labels is {settings.labels}: expected at least one for each of {classes} classes")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(settings.seed))
    held_out, rest = order.tensor_split([min(MOST_HELD_OUT, len(order) // 5)])
    chosen = balanced(labels[rest], classes, settings.labels)
    labelled, unlabelled = rest[chosen], rest[~chosen]
    available = len(unlabelled)
    size = min(USUAL_POOL, available) if settings.pool is None else settings.pool
    if size > available:
        raise ValueError(
            f"pool is {size}, but beside {settings.labels} labelled and {len(held_out)} held-out samples "
            f"the data hold {available}"
        )
    if settings.k > size:
        raise ValueError(f"k is {settings.k}, but the pool holds {size}")
    return held_out, labelled, unlabelled[:size]


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write into the folder {folder}: {error.strerror}") from error
