"""Only some of the parameters, or odd ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .cases import CLASSES, SAMPLES, Case, Function, case
from .convolutions import convolution_of
from .linear import mlp
from .networks import resnet, vit


@case
def frozen_backbone() -> Case:
    model, pool, _ = resnet()
    for p in list(model.parameters())[:-2]:
        p.requires_grad_(False)
    return Case(model, pool)


@case
def frozen_weights() -> Case:
    model, pool, _ = convolution_of("plain_")()
    for name, p in model.named_parameters():
        p.requires_grad_(name.endswith("bias"))
    return Case(model, pool)


@case
def frozen_biases() -> Case:
    model, pool, _ = convolution_of("plain_")()
    for name, p in model.named_parameters():
        p.requires_grad_(not name.endswith("bias"))
    return Case(model, pool)


@case
def half_of_the_parameters() -> Case:
    model, pool, _ = vit()
    names = [name for name, _ in model.named_parameters()]
    return Case(model, pool, set(names[::2]).__contains__)


@case
def an_unused_parameter() -> Case:
    model, pool, _ = mlp()
    model.register_parameter("unused", nn.Parameter(torch.randn(3)))
    return Case(Function(lambda self, x: self.body[:5](x), body=model), pool)


@case
def scalar_parameter() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(x) * self.temperature.exp()

    parts = {"head": nn.Linear(5, CLASSES), "temperature": nn.Parameter(torch.tensor(math.log(2)))}
    return Case(Function(forward, **parts), torch.randn(SAMPLES, 5))
