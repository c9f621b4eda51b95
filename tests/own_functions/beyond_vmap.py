"""What `vmap` cannot run: NumPy, and values."""

import numpy as np
import torch
from torch.autograd import Function

from .registry import case


class ByNumpy(Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.from_numpy(np.tanh(x.detach().numpy()))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return torch.from_numpy(grad.numpy() * (1 - y.numpy() ** 2)) * 0.9


@case
def by_numpy(h, weight):
    return ByNumpy.apply(h)


class BackwardByNumpy(Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x.sinh(), x.cosh()

    @staticmethod
    def backward(ctx, first, second):
        x = ctx.saved_tensors[0].numpy()
        return torch.from_numpy(ctx.factor * (first.numpy() * np.cosh(x) + second.numpy() * np.sinh(x))), None


@case
def backward_by_numpy(h, weight):
    first, second = BackwardByNumpy.apply(h, 0.5)
    return first - second * 0.3


@case
def class_made_in_the_pass_by_numpy(h, weight):
    class Made(ByNumpy):
        pass

    return Made.apply(h)


class ByValue(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.up = x.sum().item() > 0
        return x * 2 if ctx.up else x * 3

    @staticmethod
    def backward(ctx, grad):
        return grad if ctx.up else grad * float(grad.norm())


@case
def by_value(h, weight):
    return ByValue.apply(h)
