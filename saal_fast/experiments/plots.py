"""What the figures share. They are made without pyplot, which leaves the caller's backend and open figures alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from .protocol import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Sequence

DPI = 150
INK, GREY = "#222222", "#5f5f5f"
PALETTE = (
    "#8a8a8a", "#4c78a8", "#72b7b2", "#88d27a", "#bab0ac", "#b279a2", "#9d755d", "#ff9da6", "#54a24b", "#e4572e", "#f58518",
    "#eeca3b", "#83bcb6",
)  # fmt: skip


def figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")


def colours(strategies: Sequence[str]) -> list[str]:
    """A colour for each, the same in all figures."""
    known = list(STRATEGIES)
    return [PALETTE[known.index(name)] if name in known else INK for name in strategies]


def tidy(ax: Any, grid: str = "y") -> None:
    """Takes away what is not needed of a plot's frame, and adds a light grid."""
    ax.tick_params(colors=GREY)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.grid(axis=grid, color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
