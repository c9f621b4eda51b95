"""Figure 6: learning curves, test accuracy along the labels."""

from __future__ import annotations

import csv
from statistics import mean, stdev
from typing import TYPE_CHECKING

from .plots import DPI, GREY, INK, colours, figure, tidy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .protocol import Protocol
    from .table1 import Row


def write(protocol: Protocol, rows: Sequence[Row], stem: Path) -> None:
    """Writes `stem`.csv, a line for each round of each cell, and `stem`.png: mean and one standard deviation over seeds.

    Args:
        protocol: of the cells.
        rows: as `table1.gather` gives them.
        stem: where to, without ending; its folder exists.

    Raises:
        OSError: the files cannot be written.
    """
    with stem.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("strategy", "seed", "labels", "accuracy"))
        for row in rows:
            for seed, found in row.curves.items():
                points = zip(found.labelled, found.accuracy, strict=True)
                writer.writerows((row.strategy, seed, labels, f"{accuracy:.6g}") for labels, accuracy in points)

    drawn = figure(7.5, 4.6)
    ax = drawn.subplots()
    for row, colour in zip(rows, colours([row.strategy for row in rows]), strict=True):
        labels = next(iter(row.curves.values())).labelled
        columns = list(zip(*(found.accuracy for found in row.curves.values()), strict=True))
        middle = [mean(values) for values in columns]
        ax.plot(labels, middle, color=colour, linewidth=1.6, label=f"{row.strategy} ({len(row.curves)})")
        if len(row.curves) > 1:
            spread = [stdev(values) for values in columns]
            low, high = ([m + sign * s for m, s in zip(middle, spread, strict=True)] for sign in (-1, 1))
            ax.fill_between(labels, low, high, color=colour, alpha=0.12, linewidth=0)
    ax.set_title(f"{protocol.dataset}, {protocol.optimizer}, {protocol.title}", fontsize=12, color=INK, loc="left")
    ax.set_xlabel("labels", color=INK)
    ax.set_ylabel("test accuracy (%)", color=INK)
    tidy(ax)
    if rows:
        ax.legend(frameon=False, fontsize=9, title="strategy (seeds)", title_fontsize=9, labelcolor=GREY)
    drawn.savefig(stem.with_suffix(".png"), dpi=DPI, format="png")
