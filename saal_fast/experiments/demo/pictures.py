"""Two pictures: the picked images, and where they lie among the pool's scores.

Figures are made without pyplot, which leaves the caller's backend and open figures alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from .report import Pick

MOST_SHOWN = 60
DPI = 150
CELL_WIDTH, CELL_HEIGHT, HEADER, NARROWEST = 1.9, 2.35, 0.8, 5.2  # inches
INK, GREY, BLUE, ORANGE = "#222222", "#8a8a8a", "#4c78a8", "#e4572e"


def plot_picks(picks: Sequence[Pick], pixels: torch.Tensor, path: Path) -> None:
    """Draw the first picks, at most 60, as a grid.

    Args:
        picks: best first.
        pixels: their images, [len(picks), 1, H, W] in [0, 1].
        path: the PNG to write.
    """
    shown = picks[:MOST_SHOWN]
    columns = min(len(shown), 5 if len(shown) <= 20 else 10)
    rows = math.ceil(len(shown) / columns)
    width, height = max(CELL_WIDTH * columns, NARROWEST), CELL_HEIGHT * rows + HEADER
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    legend = "above: score; below: predicted → true class, orange where they differ"
    figure.text(0.5, 1 - 0.35 / height, _title(len(shown), len(picks)), fontsize=13, color=INK, ha="center")
    figure.text(0.5, 1 - 0.60 / height, legend, fontsize=8.5, color=GREY, ha="center")
    side = (width - CELL_WIDTH * columns) / 2 + 0.05
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": side / width,
            "right": 1 - side / width,
            "bottom": 0.25 / height,
            "top": 1 - (HEADER + 0.1) / height,
            "hspace": 0.25,
            "wspace": 0.08,
        },
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, pick, image in zip(axes.flat, shown, pixels, strict=False):
        ax.imshow(image[0].numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        color = BLUE if pick.predicted == pick.true else ORANGE
        ax.set_title(f"{pick.score:.3f}", fontsize=10, color=INK, pad=3)
        ax.text(
            0.5,
            -0.04,
            f"{pick.predicted} → {pick.true}",
            transform=ax.transAxes,
            ha="center",
            va="top",
            fontsize=8.5,
            color=color,
        )
    figure.savefig(path, format="png")


def plot_histogram(scores: torch.Tensor, picked: torch.Tensor, path: Path) -> None:
    """Draw the pool's scores as a histogram, the picks marked along its foot.

    Args:
        scores: float32 [N].
        picked: int64 [k], indices into `scores`.
        path: the PNG to write.
    """
    figure = Figure(figsize=(7.5, 4.2), dpi=DPI, facecolor="white", layout="constrained")
    ax = figure.subplots()
    ax.hist(scores.numpy(), bins=60, color=BLUE, edgecolor="white", linewidth=0.3, label=f"pool ({len(scores):,})")
    ax.plot(
        scores[picked].numpy(),
        [0.0] * len(picked),
        linestyle="none",
        marker="^",
        markersize=9,
        markerfacecolor=ORANGE,
        markeredgecolor="white",
        markeredgewidth=0.7,
        clip_on=False,
        zorder=3,
        label=f"picked ({len(picked):,})",
    )
    ax.set_title("SAAL scores of the pool", fontsize=13, color=INK, loc="left", pad=10)
    ax.set_xlabel("score: loss at the perturbed weights", color=INK)
    ax.set_ylabel("samples", color=INK)
    ax.tick_params(colors=GREY)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.margins(x=0.02)
    ax.legend(frameon=False)
    figure.savefig(path, format="png")


def _title(shown: int, picked: int) -> str:
    if picked == 1:
        return "The sample SAAL would label first"
    rest = f" (here the first {shown})" if shown < picked else ""
    return f"The {picked} samples SAAL would label first{rest}"
