"""What the operations compute, in plain PyTorch: a sum over the kernel's places."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..common.window import Window, empty_output


def apply(x: Tensor, weight: Tensor, window: list[int]) -> Tensor:
    """See `depthwise_apply`."""
    layer = check(x, window, weight=weight)
    out = empty_output(x, x.shape[1], layer, x.dtype)
    parts = [seen * weight[:, :, i, j, None, None] for i, j, seen in _places(x, layer, out.shape[2:])]
    return out.copy_(sum(parts[1:], parts[0]))


def gradient(a: Tensor, g: Tensor, window: list[int]) -> Tensor:
    """See `depthwise_gradient`."""
    layer = check(a, window, g=g)
    sums = [(seen * g).sum((2, 3)) for _, _, seen in _places(a, layer, g.shape[2:])]
    return torch.stack(sums, 2).reshape(*a.shape[:2], *layer.kernel)


def _places(x: Tensor, layer: Window, size: torch.Size) -> Iterator[tuple[int, int, Tensor]]:
    """What each place of the kernel sees of the images, for outputs of this size."""
    padded = layer.pad(x)
    for i in range(layer.kernel[0]):
        for j in range(layer.kernel[1]):
            top, left = i * layer.dilation[0], j * layer.dilation[1]
            rows = slice(top, top + (size[0] - 1) * layer.stride[0] + 1, layer.stride[0])
            yield i, j, padded[:, :, rows, left : left + (size[1] - 1) * layer.stride[1] + 1 : layer.stride[1]]


def check(x: Tensor, window: list[int], weight: Tensor | None = None, g: Tensor | None = None) -> Window:
    """The window of an operator's argument, if the tensors fit it and each other; raises ValueError where they don't."""
    layer = Window.of(window)
    fits = x.ndim == 4 and layer.groups == x.shape[1] and min(layer.output_size(*x.shape[2:])) > 0
    fits = fits and (weight is None or weight.shape == (*x.shape[:2], *layer.kernel))
    if not fits or (g is not None and g.shape != (*x.shape[:2], *layer.output_size(*x.shape[2:]))):
        named = {"images": x, "weight": weight, "g": g}
        got = ", ".join(f"{name} {list(t.shape)}" for name, t in named.items() if t is not None)
        raise ValueError(
            "expected images [N, C, H, W], weight [N, C, *kernel], g [N, C, H', W'], a window of C groups; "
            f"got {got}, {layer}"
        )
    return layer
