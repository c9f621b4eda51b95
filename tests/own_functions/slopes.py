"""Backward passes that are no derivative."""

from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .registry import case


class Round(Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


@case
def straight_through(h, weight):
    return Round.apply(3 * h)


class Reverse(Function):
    @staticmethod
    def forward(ctx, x, alpha=2.0):
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -ctx.alpha * grad


kept_apply = Reverse.apply


@case
def kept_bound_method_with_a_default(h, weight):
    return kept_apply(h)


class Clamped(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad.clamp(-0.05, 0.1) * (x > 0)


@case
def clamped_gradient_once_differentiable(h, weight):
    return Clamped.apply(h)
