"""Whole networks, and norms."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cases import CLASSES, SAMPLES, Case, Function, case, images
from .convolutions import Mean


@case
def resnet() -> Case:
    """ResNet-18's blocks with a 3×3 stem, an eighth as wide: batch norm, in-place ReLU, residual `+=`."""
    from torchvision.models.resnet import BasicBlock, conv1x1  # noqa: PLC0415 - only where it is used

    blocks: list[nn.Module] = []
    width = 8
    for stage in range(4):
        for block in range(2):
            stride, inputs, width = (2 if stage and not block else 1), width, 8 * 2**stage
            down = nn.Sequential(conv1x1(inputs, width, stride), nn.BatchNorm2d(width)) if inputs != width else None
            blocks.append(BasicBlock(inputs, width, stride, down))
    stem = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    return Case(
        nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)), images(3, 16, 16)
    )


@case
def vit() -> Case:
    from torchvision.models import VisionTransformer  # noqa: PLC0415

    model = VisionTransformer(
        image_size=12, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12, num_classes=CLASSES
    )
    return Case(model, images(3, 12, 12))


@case
def convnext() -> Case:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt  # noqa: PLC0415

    model = ConvNeXt([CNBlockConfig(6, 8, 1), CNBlockConfig(8, None, 2)], layer_scale=0.5, num_classes=CLASSES)
    return Case(model, images(3, 16, 16))


@case
def inverted_residual() -> Case:
    """MobileNet's and EfficientNet's block: wide in its middle, where each channel is convolved, weighed and added to."""

    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.deep(F.silu(self.wide(x)))
        h = h * torch.sigmoid(self.excite(F.silu(self.squeeze(h.mean((2, 3), keepdim=True)))))
        return self.head((self.narrow(h) + x[:, :, ::2, ::2]).mean((2, 3)))

    normed = {
        "wide": nn.Sequential(nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12)),
        "deep": nn.Sequential(nn.Conv2d(12, 12, 5, 2, 2, groups=12, bias=False), nn.BatchNorm2d(12), nn.Hardswish()),
        "narrow": nn.Sequential(nn.Conv2d(12, 4, 1, bias=False), nn.BatchNorm2d(4)),
    }
    weighed = {"squeeze": nn.Conv2d(12, 3, 1), "excite": nn.Conv2d(3, 12, 1)}
    return Case(Function(forward, **normed, **weighed, head=nn.Linear(4, CLASSES)), images(4, 7, 6))


@case
def layer_norm_of_images() -> Case:
    """Over channels that lie last, as ConvNeXt has it, over whole images, and without a bias."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.channels(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.vector(self.whole(x).tanh().mean((2, 3))))

    norms = {"channels": nn.LayerNorm(4), "whole": nn.LayerNorm((4, 5, 3)), "vector": nn.LayerNorm(4, bias=False)}
    return Case(Function(forward, **norms, head=nn.Linear(4, CLASSES)), images(4, 5, 3))


@case
def in_place() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.first(x), inplace=True)
        residual = self.second(h)
        residual += h
        residual.relu_()
        out = self.third(residual)
        out.mul_(2).add_(residual)
        return self.head(F.relu(out, inplace=True).mean((2, 3)))

    parts = {name: nn.Conv2d(3, 3, 3, padding=1) for name in ("first", "second", "third")}
    return Case(Function(forward, **parts, head=nn.Linear(3, CLASSES)), images(3, 5, 5))


def _normed(norm: nn.Module, *size: int) -> Case:
    conv = {1: nn.Conv1d, 2: nn.Conv2d}[len(size)]
    layers = conv(2, 4, 3), norm, nn.ReLU(inplace=True), conv(4, 4, 1), nn.Flatten(2), Mean(), nn.Linear(4, CLASSES)
    return Case(nn.Sequential(*layers), images(2, *size))


@case
def batch_norm_2d() -> Case:
    return _normed(nn.BatchNorm2d(4), 6, 5)


@case
def batch_norm_1d() -> Case:
    return _normed(nn.BatchNorm1d(4), 8)


@case
def batch_norm_without_weights() -> Case:
    return _normed(nn.BatchNorm2d(4, affine=False), 6, 5)


@case
def batch_norm_without_statistics() -> Case:
    return _normed(nn.BatchNorm2d(4, track_running_stats=False), 6, 5)


@case
def batch_norm_of_vectors() -> Case:
    return Case(nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, CLASSES)), torch.randn(SAMPLES, 5))


@case
def group_norm() -> Case:
    return _normed(nn.GroupNorm(2, 4), 6, 5)


@case
def layer_norm() -> Case:
    return _normed(nn.LayerNorm([4, 4, 3]), 6, 5)


@case
def instance_norm() -> Case:
    return _normed(nn.InstanceNorm2d(4, affine=True), 6, 5)


@case
def instance_norm_with_statistics() -> Case:
    return _normed(nn.InstanceNorm2d(4, affine=True, track_running_stats=True), 6, 5)


@case
def weight_norm() -> Case:
    wrap = nn.utils.parametrizations.weight_norm
    return Case(nn.Sequential(wrap(nn.Conv1d(2, 4, 3)), nn.Tanh(), nn.Flatten(), wrap(nn.Linear(16, CLASSES))), images(2, 6))


@case
def orthogonal_and_spectral_norm() -> Case:
    wrap = nn.utils.parametrizations
    return Case(
        nn.Sequential(wrap.spectral_norm(nn.Linear(5, 5)), nn.Tanh(), wrap.orthogonal(nn.Linear(5, CLASSES))),
        torch.randn(SAMPLES, 5),
    )
