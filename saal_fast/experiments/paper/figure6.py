"""Figure 6: learning curves, test accuracy over the number of labels."""

from __future__ import annotations

import csv
from statistics import mean, stdev
from typing import TYPE_CHECKING

from ..plots import GREY, INK, new_figure, save_png, style_axes
from .colours import colours

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .protocol import Protocol
    from .table1 import Row


def write(protocol: Protocol, rows: Sequence[Row], stem: Path) -> None:
    """Writes `stem`.csv, a line for each round of each cell, and `stem`.png: mean and one standard deviation over seeds.

    Args:
        protocol: the cells' protocol.
        rows: the results, from `table1.gather`.
        stem: path of the files without their ending; its folder exists.

    Raises:
        OSError: the files cannot be written.
    """
    with stem.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("strategy", "seed", "labels", "accuracy"))
        for row in rows:
            for seed, curve in row.curves.items():
                points = zip(curve.labelled, curve.accuracy, strict=True)
                writer.writerows((row.strategy, seed, labels, f"{accuracy:.6g}") for labels, accuracy in points)

    figure = new_figure(7.5, 4.6)
    ax = figure.subplots()
    for row, colour in zip(rows, colours([row.strategy for row in rows]), strict=True):
        labels = next(iter(row.curves.values())).labelled
        columns = list(zip(*(curve.accuracy for curve in row.curves.values()), strict=True))
        middle = [mean(values) for values in columns]
        ax.plot(labels, middle, color=colour, linewidth=1.6, label=f"{row.strategy} ({len(row.curves)})")
        if len(row.curves) > 1:
            spread = [stdev(values) for values in columns]
            low, high = ([m + sign * s for m, s in zip(middle, spread, strict=True)] for sign in (-1, 1))
            ax.fill_between(labels, low, high, color=colour, alpha=0.12, linewidth=0)
    ax.set_xlabel("labels", color=INK)
    ax.set_ylabel("test accuracy (%)", color=INK)
    style_axes(ax, f"{protocol.dataset}, {protocol.optimizer}, {protocol.title}")
    if rows:
        ax.legend(frameon=False, fontsize=9, title="strategy (seeds)", title_fontsize=9, labelcolor=GREY)
    save_png(figure, stem.with_suffix(".png"))
