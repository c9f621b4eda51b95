"""A small residual network for small grey images."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm, around a shortcut (He et al., 2016).

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: of the first convolution and the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        return torch.relu(self.main(x) + self.shortcut(x))


def small_resnet(classes: int, side: int, widths: tuple[int, ...] = (32, 64, 128)) -> nn.Sequential:
    """A residual network of one block a width, each but the first halving the image.

    Args:
        classes: how many logits.
        side: the images' height and width; above 16, the first convolution halves them too.
        widths: channels of the blocks.

    Returns:
        A network from [N, 1, side, side] to logits [N, classes].
    """
    first = nn.Conv2d(1, widths[0], 3, stride=2 if side > 16 else 1, padding=1, bias=False)
    blocks = [
        Block(inputs, outputs, stride=1 if i == 0 else 2)
        for i, (inputs, outputs) in enumerate(zip((widths[0], *widths), widths, strict=False))
    ]
    return nn.Sequential(
        first,
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(widths[-1], classes),
    )
