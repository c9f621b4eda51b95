"""The picks and the timing as text: tables and a CSV file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .timing import Timing

CSV_COLUMNS = ("rank", "index", "score", "loss", "grad_norm", "predicted", "true")


@dataclass(frozen=True)
class Pick:
    """One picked sample.

    Attributes:
        rank: 1 for the first.
        index: index in the data set.
        score: its perturbed loss, by which SAAL ranks.
        loss: its loss at the unperturbed weights, for the predicted class.
        grad_norm: L2 norm of that loss's gradient.
        predicted: the class that the model predicts.
        true: its label, which SAAL has not seen.
    """

    rank: int
    index: int
    score: float
    loss: float
    grad_norm: float
    predicted: str
    true: str


def table(picks: Sequence[Pick]) -> str:
    """The picks as aligned columns under a heading."""
    heading = ("rank", "index", "score", "loss", "gradient norm", "predicted", "true")
    rows = [
        (str(p.rank), str(p.index), f"{p.score:.4f}", f"{p.loss:.4f}", f"{p.grad_norm:.4f}", p.predicted, p.true)
        for p in picks
    ]
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    names = {heading.index("predicted"), heading.index("true")}

    def line(cells: Sequence[str]) -> str:
        aligned = (
            cell.ljust(width) if i in names else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(aligned).rstrip()

    return "\n".join([line(heading), line(["─" * width for width in widths]), *map(line, rows)])


def write_csv(picks: Sequence[Pick], path: Path) -> None:
    """Writes the picks to `path`, numbers with six digits.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        writer.writerows(
            (p.rank, p.index, f"{p.score:.6g}", f"{p.loss:.6g}", f"{p.grad_norm:.6g}", p.predicted, p.true) for p in picks
        )


def timing_table(timing: Timing, engine: str) -> str:
    """Three lines of milliseconds, each with its ratio to a plain forward pass."""
    rows = (
        ("plain forward pass", timing.forward),
        (f"SAAL, {engine} engine", timing.fast),
        ("SAAL, one sample at a time", timing.reference),
    )
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {ms:7.3f} ms  {ms / timing.forward:6.1f} × forward" for name, ms in rows)
