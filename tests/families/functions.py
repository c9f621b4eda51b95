"""Functions with a backward pass of their own, hooks, and models that another library has hooked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .checkpointing import token_ids
from .family import family


class Gelu(torch.autograd.Function):
    """Bloom's: both passes written out, without `setup_context`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        t = torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x))
        return grad * (0.5 * x * ((1 - t * t) * (0.79788456 + 0.1070322243 * x * x)) + 0.5 * (1 + t))


class Swish(torch.autograd.Function):
    """The memory-efficient one of EfficientNets."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        s = torch.sigmoid(ctx.saved_tensors[0])
        return grad * (s * (1 + ctx.saved_tensors[0] * (1 - s)))


class Sign(torch.autograd.Function):
    """The straight-through estimator of binary networks: its backward pass is not the derivative of its forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * (ctx.saved_tensors[0].abs() <= 1)


class Reversal(torch.autograd.Function):
    """The gradient reversal of domain-adversarial networks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.neg() * ctx.alpha, None


reverse = Reversal.apply  # as most code keeps it: a bound method, made at import


class Net(nn.Module):
    """A convolution and two linear layers, with a function between any two."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.conv, self.mix, self.head = nn.Conv2d(2, 6, 3), nn.Linear(6, 8), nn.Linear(8, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        h = self.function(self.conv(x)).mean((2, 3)) + 0.1
        return self.head(self.function(self.mix(h)))


def pictures() -> Tensor:
    return torch.randn(3, 2, 6, 6)


@family
def gelu_written_out() -> tuple[nn.Module, Any]:
    return Net(Gelu.apply), pictures()


@family
def memory_efficient_swish() -> tuple[nn.Module, Any]:
    return Net(Swish.apply), pictures()


@family
def straight_through() -> tuple[nn.Module, Any]:
    return Net(lambda x: Sign.apply(x) * x.abs().mean()), pictures()


@family
def gradient_reversal() -> tuple[nn.Module, Any]:
    return Net(lambda x: reverse(x.tanh(), 0.7)), pictures()


@family(slow=True)
def bloom() -> tuple[nn.Module, Any]:
    import transformers  # noqa: PLC0415 - a slow import

    config = transformers.BloomConfig(vocab_size=24, hidden_size=16, n_layer=2, n_head=2, num_labels=3, pad_token_id=0)
    model = transformers.BloomForSequenceClassification(config)
    return model, token_ids() | {"input_ids": torch.randint(1, 24, (3, 7))}


@family
def full_backward_hooks() -> tuple[nn.Module, Any]:
    model = Net(torch.tanh)
    model.conv.register_full_backward_hook(lambda module, grads, _: None)
    model.mix.register_full_backward_hook(lambda module, grads, _: tuple(g * 0.5 for g in grads))
    model.head.register_full_backward_pre_hook(lambda module, grads: tuple(g.clamp(-0.2, 0.3) for g in grads))
    return model, pictures()


@family
def opacus_grad_sample_module() -> tuple[nn.Module, Any]:
    module = pytest.importorskip("opacus.grad_sample").GradSampleModule
    return module(Net(torch.tanh)), pictures()
