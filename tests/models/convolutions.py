"""Convolutions of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cases import CASES, CLASSES, SAMPLES, Case, Function, case, images

CONVOLUTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (1, {"padding": 1}),
    "stride": (1, {"stride": 2, "padding": 2}),
    "dilated": (1, {"dilation": 2, "padding": 1}),
    "same": (1, {"kernel_size": 4, "padding": "same"}),
    "circular": (1, {"padding": 1, "padding_mode": "circular"}),
    "groups": (1, {"groups": 2, "bias": False}),
    "plain_": (2, {"padding": 1}),
    "stride_": (2, {"stride": (2, 1), "padding": (1, 0)}),
    "pointwise": (2, {"kernel_size": 1}),
    "pointwise_stride": (2, {"kernel_size": 1, "stride": 2, "bias": False}),
    "same_": (2, {"kernel_size": (2, 3), "padding": "same", "dilation": (1, 2)}),
    "valid": (2, {"padding": "valid", "bias": False}),
    "reflect": (2, {"padding": (1, 2), "padding_mode": "reflect"}),
    "circular_": (2, {"padding": 1, "padding_mode": "circular", "stride": 2}),
    "replicate_same": (2, {"kernel_size": 4, "padding": "same", "padding_mode": "replicate"}),
    "groups_": (2, {"groups": 2, "stride": 2}),
    "depthwise": (2, {"groups": 4, "padding": 1}),
    "depthwise_multiplied": (2, {"groups": 4, "out_channels": 8, "kernel_size": 5, "padding": 2, "bias": False}),
    "plain__": (3, {"padding": 1}),
    "stride__": (3, {"stride": (1, 2, 1), "padding": (0, 1, 1), "bias": False}),
    "groups__": (3, {"groups": 2, "dilation": (1, 1, 2), "padding": "same"}),
    "transposed": (2, {"stride": 2}),
}


def convolution_of(name: str) -> Callable[[], Case]:
    dims, options = CONVOLUTIONS[name]

    def convolution() -> Case:
        settings = {"in_channels": 4, "out_channels": 4, "kernel_size": 3} | options
        kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
        layer = nn.ConvTranspose2d(**settings) if name == "transposed" else kinds[dims](**settings)
        first, head = kinds[dims](2, 4, 1), nn.Linear(settings["out_channels"], CLASSES)
        pool = images(2, *(9, 7, 5)[:dims] if dims > 1 else (9,))
        return Case(nn.Sequential(first, nn.Tanh(), layer, nn.Tanh(), nn.Flatten(2), Mean(), head), pool)

    return convolution


class Mean(nn.Module):
    """Mean over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(-1)


for _name, (_dims, _) in CONVOLUTIONS.items():
    CASES[f"conv{_dims}d_{_name.rstrip('_')}"] = convolution_of(_name)


@case
def conv_at_two_sizes_and_strides() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        w, b = self.conv.weight, self.conv.bias
        h = F.conv2d(x, w, b, padding=1).tanh()
        h = F.conv2d(h, w, b, stride=2).tanh()
        return self.head(F.conv2d(h, w, None, padding=1).tanh().mean((2, 3)))

    return Case(Function(forward, conv=nn.Conv2d(3, 3, 3), head=nn.Linear(3, CLASSES)), images(3))


@case
def conv_called_twice() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(self.conv(self.conv(x).relu()).tanh().mean((2, 3)))

    return Case(Function(forward, conv=nn.Conv2d(4, 4, 3, padding=1, groups=2), head=nn.Linear(4, CLASSES)), images(4))


@case
def conv_of_several_windows() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        n, windows = x.shape[:2]
        h = self.conv(x.flatten(0, 1)).tanh().mean((2, 3))
        return self.head(h.view(n, windows, -1).mean(1))

    parts = {"conv": nn.Conv2d(2, 4, 3, padding=1, groups=2), "head": nn.Linear(4, CLASSES)}
    return Case(Function(forward, **parts), torch.randn(SAMPLES, 3, 2, 6, 5))


@case
def conv_unbatched() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = torch.stack([self.conv(one).tanh() for one in x.unbind(0)])
        return self.head(h.mean((2, 3)))

    return Case(Function(forward, conv=nn.Conv2d(2, 4, 3), head=nn.Linear(4, CLASSES)), images(2))
