"""A small residual network for small grey images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..networks import residual_network

if TYPE_CHECKING:
    from torch import nn


def small_resnet(classes: int, side: int, widths: tuple[int, ...] = (32, 64, 128)) -> nn.Sequential:
    """A residual network of one block a width, each but the first halving the image.

    Args:
        classes: how many logits.
        side: the images' height and width; above 16, the first convolution halves them too.
        widths: channels of the blocks.

    Returns:
        A network from [N, 1, side, side] to logits [N, classes].
    """
    return residual_network(classes, channels=1, widths=widths, stem_stride=2 if side > 16 else 1)
