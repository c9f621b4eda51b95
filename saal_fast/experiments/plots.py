"""The style that all figures share. No figure uses pyplot, so the caller's backend and open figures stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

DPI = 150
INK, GREY, LIGHT_GREY, BLUE, ORANGE = "#222222", "#5f5f5f", "#e6e6e6", "#4c78a8", "#e4572e"


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty white figure, `width` by `height` inches."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)


def style_axes(ax: Any, title: str, *, grid: str = "y") -> None:
    """Sets the title, hides the upper and right spines, and draws a light grid along the axis `grid`."""
    ax.set_title(title, fontsize=12, color=INK, loc="left")
    ax.tick_params(colors=GREY)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.grid(axis=grid, color=LIGHT_GREY, linewidth=0.8)
    ax.set_axisbelow(True)


def save_png(figure: Figure, path: Path) -> None:
    """Writes the figure as a PNG.

    Raises:
        OSError: the file cannot be written.
    """
    figure.savefig(path, dpi=DPI, format="png")
