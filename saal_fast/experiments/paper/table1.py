"""Table 1: each strategy's test accuracy, beside the paper's own figures."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from io import StringIO
from statistics import mean, stdev
from typing import TYPE_CHECKING

from . import published
from .protocol import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .cells import Cell, Curve
    from .protocol import Protocol


@dataclass(frozen=True)
class Row:
    """The results of one strategy.

    Attributes:
        strategy: name of the strategy.
        curves: curve of each whole cell, by seed.
        paper: the paper's figure, as printed.
    """

    strategy: str
    curves: dict[int, Curve]
    paper: str

    @property
    def last(self) -> list[float]:
        """Accuracy after the last round, in percent, of each seed."""
        return [curve.last for curve in self.curves.values()]

    @property
    def mean(self) -> list[float]:
        """Mean accuracy over the curve, in percent, of each seed."""
        return [curve.mean for curve in self.curves.values()]


def gather(curves: Mapping[Cell, Curve], order: Sequence[str] = tuple(STRATEGIES)) -> list[Row]:
    """Groups the cells of one protocol into rows; a strategy without a cell has no row.

    Args:
        curves: curve of each cell.
        order: order of the strategies.
    """
    rows = []
    for strategy in order:
        cells = sorted((cell for cell in curves if cell.strategy == strategy), key=lambda cell: cell.seed)
        if cells:
            p = cells[0].protocol
            by_seed = {cell.seed: curves[cell] for cell in cells}
            rows.append(Row(strategy, by_seed, published.table1(p.optimizer, p.dataset, strategy)))
    return rows


def markdown(protocol: Protocol, rows: Sequence[Row]) -> str:
    """The table in Markdown: mean ± sample standard deviation over seeds, the best in bold."""
    p = protocol
    first = next((curve for row in rows for curve in row.curves.values()), None)
    labels = "" if first is None else f", {first.labelled[0]:,} to {first.labelled[-1]:,} labels"
    lines = [
        f"Test accuracy (%), {p.dataset}, {p.optimizer}, {p.title}{labels}",
        "",
        "| strategy | after the last round | mean over the curve | seeds | the paper's own, by its protocol |",
        "| --- | --- | --- | --- | --- |",
    ]
    columns = [_with_best_bold([row.last for row in rows]), _with_best_bold([row.mean for row in rows])]
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
    """A CSV line for each cell: strategy, seed, labels, last accuracy, mean over the curve, the paper's figure."""
    out = StringIO()
    writer = csv.writer(out)
    writer.writerow(("strategy", "seed", "labels", "last", "mean", "paper"))
    for row in rows:
        for seed, curve in row.curves.items():
            writer.writerow((row.strategy, seed, curve.labelled[-1], f"{curve.last:.6g}", f"{curve.mean:.6g}", row.paper))
    return out.getvalue()


def format_mean(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation with one decimal; of a single value the mean alone."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _with_best_bold(columns: Sequence[Sequence[float]]) -> list[str]:
    """Formats each; those whose printed mean is the largest are bold."""
    best = max((f"{mean(values):.1f}" for values in columns), key=float, default="")
    return [f"**{format_mean(v)}**" if f"{mean(v):.1f}" == best else format_mean(v) for v in columns]
