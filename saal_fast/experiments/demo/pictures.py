"""The demonstration's two pictures: the picked images, and the histogram of the pool's scores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..plots import BLUE, GREY, INK, ORANGE, new_figure, save_png, style_axes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from .report import Pick

MAX_SHOWN = 60
IMAGE_WIDTH, IMAGE_HEIGHT, HEADER_HEIGHT, MIN_WIDTH = 1.9, 2.35, 0.8, 5.2  # inches, captions included


def draw_picks(picks: Sequence[Pick], pixels: torch.Tensor, path: Path) -> None:
    """Draws the first picks, at most 60, as a grid.

    Args:
        picks: the picks, best first.
        pixels: their images, [len(picks), 1, H, W] in [0, 1].
        path: the PNG to write.
    """
    shown = picks[:MAX_SHOWN]
    columns = min(len(shown), 5 if len(shown) <= 20 else 10)
    rows = math.ceil(len(shown) / columns)
    width, height = max(IMAGE_WIDTH * columns, MIN_WIDTH), IMAGE_HEIGHT * rows + HEADER_HEIGHT
    figure = new_figure(width, height, layout=None)
    legend = "above: score; below: predicted → true class, orange where they differ"
    figure.text(0.5, 1 - 0.35 / height, _title(len(shown), len(picks)), fontsize=13, color=INK, ha="center")
    figure.text(0.5, 1 - 0.60 / height, legend, fontsize=8.5, color=GREY, ha="center")
    side = (width - IMAGE_WIDTH * columns) / 2 + 0.05
    margins = {
        "left": side / width,
        "right": 1 - side / width,
        "bottom": 0.25 / height,
        "top": 1 - (HEADER_HEIGHT + 0.1) / height,
    }
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw={**margins, "hspace": 0.25, "wspace": 0.08})
    for ax in axes.flat:
        ax.set_axis_off()
    caption = {"ha": "center", "va": "top", "fontsize": 8.5}
    for ax, pick, image in zip(axes.flat, shown, pixels, strict=False):
        ax.imshow(image[0].numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(f"{pick.score:.3f}", fontsize=10, color=INK, pad=3)
        color = BLUE if pick.predicted == pick.true else ORANGE
        ax.text(0.5, -0.04, f"{pick.predicted} → {pick.true}", transform=ax.transAxes, color=color, **caption)
    save_png(figure, path)


def draw_histogram(scores: torch.Tensor, picked: torch.Tensor, path: Path) -> None:
    """Draws the pool's scores as a histogram, with the picks marked at its foot.

    Args:
        scores: float32 [N].
        picked: int64 [k], indices into `scores`.
        path: the PNG to write.
    """
    figure = new_figure(7.5, 4.2)
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
    ax.set_xlabel("score: loss at the perturbed weights", color=INK)
    ax.set_ylabel("samples", color=INK)
    style_axes(ax, "SAAL scores of the pool")
    ax.margins(x=0.02)
    ax.legend(frameon=False)
    save_png(figure, path)


def _title(shown: int, picked: int) -> str:
    if picked == 1:
        return "The sample SAAL would label first"
    rest = f" (here the first {shown})" if shown < picked else ""
    return f"The {picked} samples SAAL would label first{rest}"
