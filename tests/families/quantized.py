"""Fake quantisation, and parts that run without gradients."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from .family import family


def prepared(*, freeze: bool, version: int | None = 0) -> nn.Module:
    from torch.ao import quantization  # noqa: PLC0415

    model = nn.Sequential(
        quantization.QuantStub(), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3), quantization.DeQuantStub()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.qconfig = quantization.get_default_qat_qconfig("fbgemm", version=version)
        quantization.prepare_qat(model.train(), inplace=True)
    model(torch.randn(8, 2, 6, 6))
    if freeze:
        model.apply(quantization.disable_observer)
    return model


@family
def quantisation_aware() -> tuple[nn.Module, Any]:
    return prepared(freeze=True), torch.randn(4, 2, 6, 6)


@family
def quantisation_aware_that_observes() -> tuple[nn.Module, Any]:
    return prepared(freeze=False), torch.randn(4, 2, 6, 6)


@family
def quantisation_aware_fused() -> tuple[nn.Module, Any]:
    return prepared(freeze=True, version=1), torch.randn(4, 2, 6, 6)


@family
def quantisation_aware_fused_that_observes() -> tuple[nn.Module, Any]:
    return prepared(freeze=False, version=1), torch.randn(4, 2, 6, 6)


class Parts(nn.Module):
    """A part that runs without gradients, and one that has them."""

    def __init__(self, without: Any, after: Any = lambda h: h) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.without, self.after = without, after

    def forward(self, x: Tensor) -> Tensor:
        with self.without():
            h = self.first(x).tanh()
        return self.head(self.second(self.after(h)).tanh())


@family
def no_grad_inside() -> tuple[nn.Module, Any]:
    return Parts(torch.no_grad), torch.randn(4, 4)


@family
def inference_mode_inside() -> tuple[nn.Module, Any]:
    return Parts(torch.inference_mode, torch.clone), torch.randn(4, 4)


@family
def inference_mode_inside_without_a_copy() -> tuple[nn.Module, Any]:
    return Parts(torch.inference_mode), torch.randn(4, 4)
