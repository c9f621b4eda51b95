"""Parts of models that run without gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .family import family


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
