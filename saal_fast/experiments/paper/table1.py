"""Table 1: test accuracy after the last round, strategy by strategy, beside the paper's own figures."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from io import StringIO
from statistics import mean, stdev
from typing import TYPE_CHECKING

from . import published as paper
from .protocol import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .cells import Cell, Curve
    from .protocol import Protocol


@dataclass(frozen=True)
class Row:
    """What the cells of a strategy found.

    Attributes:
        strategy: its name.
        curves: of the cells that are whole, by seed.
        paper: the paper's figure, as printed.
    """

    strategy: str
    curves: dict[int, Curve]
    paper: str

    @property
    def last(self) -> list[float]:
        """Accuracy after the last round, in percent, of each seed."""
        return [found.last for found in self.curves.values()]

    @property
    def mean(self) -> list[float]:
        """Mean accuracy over the curve, in percent, of each seed."""
        return [found.mean for found in self.curves.values()]


def gather(curves: Mapping[Cell, Curve], order: Sequence[str] = tuple(STRATEGIES)) -> list[Row]:
    """Rows of cells of one protocol; a strategy without one has none.

    Args:
        curves: what they found.
        order: of the strategies.
    """
    rows = []
    for strategy in order:
        mine = {cell: found for cell, found in curves.items() if cell.strategy == strategy}
        if mine:
            p = next(iter(mine)).protocol
            by_seed = {cell.seed: mine[cell] for cell in sorted(mine, key=lambda cell: cell.seed)}
            rows.append(Row(strategy, by_seed, paper.table1(p.optimizer, p.dataset, strategy)))
    return rows


def markdown(protocol: Protocol, rows: Sequence[Row]) -> str:
    """The table in Markdown: mean ± sample standard deviation over seeds, the best in bold, the paper's figures marked."""
    p = protocol
    first = next((found for row in rows for found in row.curves.values()), None)
    labels = "" if first is None else f", {first.labelled[0]:,} to {first.labelled[-1]:,} labels"
    lines = [
        f"Test accuracy (%), {p.dataset}, {p.optimizer}, {p.title}{labels}",
        "",
        "| strategy | after the last round | mean over the curve | seeds | the paper's own, by its protocol |",
        "| --- | --- | --- | --- | --- |",
    ]
    columns = [_bold([row.last for row in rows]), _bold([row.mean for row in rows])]
    for row, last, over in zip(rows, *columns, strict=True):
        lines.append(f"| {row.strategy} | {last} | {over} | {len(row.curves)} | {row.paper} |")
    if not rows:
        lines.append("| (no whole cell) | – | – | 0 | – |")
    if any(row.strategy == "saal-kmeans++" and row.paper != "–" for row in rows):
        lines += [
            "",
            "The paper has one row SAAL and does not say whether with k-means++ diversity: its figure stands at both.",
        ]
    return "\n".join(lines)


def as_csv(rows: Sequence[Row]) -> str:
    """A line for each cell: strategy, seed, labels, accuracy after the last round and over the curve, the paper's figure."""
    out = StringIO()
    writer = csv.writer(out)
    writer.writerow(("strategy", "seed", "labels", "last", "mean", "paper"))
    for row in rows:
        for seed, found in row.curves.items():
            writer.writerow((row.strategy, seed, found.labelled[-1], f"{found.last:.6g}", f"{found.mean:.6g}", row.paper))
    return out.getvalue()


def spell(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation in one digit; the mean alone of a single value."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _bold(columns: Sequence[Sequence[float]]) -> list[str]:
    """Each spelled, and those in bold whose mean, as printed, is the largest."""
    best = max((f"{mean(values):.1f}" for values in columns), key=float, default="")
    return [f"**{spell(values)}**" if f"{mean(values):.1f}" == best else spell(values) for values in columns]
