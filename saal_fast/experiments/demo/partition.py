"""Divides a data set into labelled samples, the pool and held-out samples."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..datasets import ImageData, balanced, load

if TYPE_CHECKING:
    from pathlib import Path

    from .settings import Settings

DEFAULT_POOL = 2000
MAX_HELD_OUT = 1000


@dataclass(frozen=True, eq=False)
class Partition:
    """A data set and three disjoint sets of indices into it.

    Attributes:
        settings: the settings it was made by.
        data: the images and their labels.
        labelled: int64 [labels], balanced: the classes' counts differ by at most one.
        pool: int64 [pool], drawn uniformly from the rest; their labels are shown, never used.
        held_out: int64, for measuring accuracy: a fifth of the data, at most 1,000.
    """

    settings: Settings
    data: ImageData
    labelled: torch.Tensor
    pool: torch.Tensor
    held_out: torch.Tensor


def prepare(settings: Settings) -> Partition:
    """Loads the data, draws the three sets and creates the output folder, so that settings fail here or nowhere.

    Raises:
        ValueError: the data set is unknown, damaged, too small for the settings, or has more classes than `labels`.
        OSError: the data set is not found, or the output folder cannot be written.
    """
    data = load(settings.data, settings.data_root)
    held_out, labelled, pool = _draw(data.labels, len(data.classes), settings)
    _make_writable(settings.out)
    return Partition(settings, data, labelled, pool, held_out)


def _draw(labels: torch.Tensor, classes: int, settings: Settings) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices of held-out samples, labelled samples and pool: one shuffle by `settings.seed`, divided into three."""
    if settings.labels < classes:
        raise ValueError(f"labels is {settings.labels}: expected at least one for each of {classes} classes")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(settings.seed))
    held_out, rest = order.tensor_split([min(MAX_HELD_OUT, len(order) // 5)])
    chosen = balanced(labels[rest], classes, settings.labels)
    labelled, unlabelled = rest[chosen], rest[~chosen]
    available = len(unlabelled)
    size = min(DEFAULT_POOL, available) if settings.pool is None else settings.pool
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
