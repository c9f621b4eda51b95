"""Residual networks for small images (He et al., 2016, arXiv:1512.03385)."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm, around a shortcut.

    Args:
        inputs: input channels.
        outputs: output channels.
        stride: stride of the first convolution and of the shortcut.
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


def residual_network(
    classes: int, *, channels: int, widths: tuple[int, ...], blocks: int = 1, stem_stride: int = 1
) -> nn.Sequential:
    """A 3×3 stem, `blocks` blocks for each width, and a linear layer; every width but the first halves the image.

    Args:
        classes: number of logits.
        channels: channels of the images.
        widths: channels of the blocks; the stem has `widths[0]`.
        blocks: number of blocks for each width.
        stem_stride: 2 makes the stem halve the image too.

    Returns:
        A network from [N, channels, H, W] to logits [N, classes].
    """
    stages = [width for width in widths for _ in range(blocks)]
    return nn.Sequential(
        nn.Conv2d(channels, widths[0], 3, stem_stride, padding=1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
        *(
            Block(inputs, outputs, stride=2 if i and i % blocks == 0 else 1)
            for i, (inputs, outputs) in enumerate(zip((widths[0], *stages), stages, strict=False))
        ),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(widths[-1], classes),
    )


def resnet18(classes: int, channels: int = 3, width: int = 64, stem_stride: int = 1) -> nn.Sequential:
    """ResNet-18 with the stem for 32×32 images: 3×3, no pooling.

    Args:
        classes: number of logits.
        channels: channels of the images.
        width: channels of the first stage, 64 in the paper's network; the later stages have 2, 4 and 8 times as many.
        stem_stride: 1 as published; 2 takes a quarter of the time.

    Returns:
        A network from [N, channels, H, W] to logits [N, classes].

    Raises:
        ValueError: an argument is below 1.
    """
    for name, value in {"classes": classes, "channels": channels, "width": width, "stem_stride": stem_stride}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: expected at least 1")
    widths = (width, 2 * width, 4 * width, 8 * width)
    return residual_network(classes, channels=channels, widths=widths, blocks=2, stem_stride=stem_stride)


def small_resnet(classes: int, side: int, widths: tuple[int, ...] = (32, 64, 128)) -> nn.Sequential:
    """A residual network for small grey images, with one block for each width.

    Args:
        classes: number of logits.
        side: height and width of the images; above 16 pixels the stem halves them too.
        widths: channels of the blocks.

    Returns:
        A network from [N, 1, side, side] to logits [N, classes].
    """
    return residual_network(classes, channels=1, widths=widths, stem_stride=2 if side > 16 else 1)
