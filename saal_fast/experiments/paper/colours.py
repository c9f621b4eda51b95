"""The strategies' colours, the same in all figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..plots import INK
from .protocol import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Iterable

PALETTE = (
    "#8a8a8a", "#4c78a8", "#72b7b2", "#88d27a", "#bab0ac", "#b279a2", "#9d755d", "#ff9da6", "#54a24b", "#e4572e", "#f58518",
    "#eeca3b", "#83bcb6",
)  # fmt: skip
COLOURS = dict(zip(STRATEGIES, PALETTE, strict=True))


def colours(strategies: Iterable[str]) -> list[str]:
    """The colour of each strategy; other names are black."""
    return [COLOURS.get(name, INK) for name in strategies]
