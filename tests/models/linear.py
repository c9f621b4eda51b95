"""Linear layers: used twice, of several windows, tied, called by keyword."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cases import CLASSES, SAMPLES, Case, Function, case


@case
def mlp() -> Case:
    return Case(
        nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 6, bias=False), nn.Tanh(), nn.Linear(6, CLASSES)),
        torch.randn(SAMPLES, 5),
    )


@case
def linear_of_several_windows() -> Case:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.Flatten(), nn.Linear(36, CLASSES))
    return Case(model, torch.randn(SAMPLES, 2, 3, 5))


@case
def linear_used_twice() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))

    return Case(Function(forward, layer=nn.Linear(5, 5), head=nn.Linear(5, CLASSES)), torch.randn(SAMPLES, 5))


@case
def linear_used_on_one_and_on_many() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(self.layer(self.layer(x).tanh().sum(1)))

    return Case(Function(forward, layer=nn.Linear(5, 5), head=nn.Linear(5, CLASSES)), torch.randn(SAMPLES, 4, 5))


@case
def weight_shared_bias_not() -> Case:
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    second.weight = first.weight
    return Case(nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(5, CLASSES)), torch.randn(SAMPLES, 5))


@case
def bias_shared_with_frozen_weight() -> Case:
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    second.bias = first.bias
    second.weight.requires_grad_(False)
    return Case(nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(5, CLASSES)), torch.randn(SAMPLES, 5))


@case
def called_by_keyword() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = F.linear(weight=self.layer.weight, input=x, bias=self.layer.bias).tanh()
        h = F.conv1d(h[:, None], weight=self.conv.weight, padding=1, bias=None).mean(1)
        return F.linear(h, bias=self.head.bias, weight=self.head.weight)

    parts = {"layer": nn.Linear(5, 6), "conv": nn.Conv1d(1, 3, 3, bias=False), "head": nn.Linear(6, CLASSES)}
    return Case(Function(forward, **parts), torch.randn(SAMPLES, 5))


@case
def parameter_as_input() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.queries), F.linear(self.queries, self.head.weight).T, self.head.bias)

    parts = {"queries": nn.Parameter(torch.randn(5, 5)), "head": nn.Linear(5, CLASSES)}
    return Case(Function(forward, **parts), torch.randn(SAMPLES, 5))


@case
def weight_used_outside_its_layer() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(self.layer(x).tanh() @ self.layer.weight + self.head.weight.sum(0) + self.layer.bias.cos())

    return Case(Function(forward, layer=nn.Linear(5, 5), head=nn.Linear(5, CLASSES)), torch.randn(SAMPLES, 5))


@case
def bilinear() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(self.layer(x, x.cos()).tanh())

    return Case(Function(forward, layer=nn.Bilinear(4, 4, 3), head=nn.Linear(3, CLASSES)), torch.randn(SAMPLES, 4))
