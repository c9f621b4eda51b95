"""What a context may hold, and how functions are called and made."""

import torch
import torch.nn.functional as F
from torch.autograd import Function
from torch.autograd.function import InplaceFunction

from .registry import case
from .slopes import Reverse, Round


class Everything(Function):
    """Saved inputs, outputs and what lies between; attributes; outputs without a gradient, of another type, unused."""

    @staticmethod
    def forward(ctx, x, power, name):
        assert name == "a name"
        between = x.exp()
        out, positive, unused = between**power, x > 0, x * 2
        ctx.save_for_backward(x, between, out)
        ctx.power, ctx.mask = power, positive
        ctx.mark_non_differentiable(positive)
        ctx.set_materialize_grads(False)
        return out, positive, unused

    @staticmethod
    def backward(ctx, grad, of_positive, of_unused):
        assert of_positive is None and of_unused is None  # noqa: PT018
        assert ctx.needs_input_grad == (True, False, False)
        x, between, out = ctx.saved_tensors
        return grad * 1.5 * ctx.power * out * torch.where(ctx.mask, 1.0, 0.3) * (between / x.exp()), None, None


@case
def context_of_every_kind(h, weight):
    out, positive, _ = Everything.apply(h, 2, "a name")
    return torch.where(positive, out, -out)


class InPlace(InplaceFunction):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, grad):
        return grad * 3


@case
def in_place(h, weight):
    return InPlace.apply(h + 1)


@case
def in_place_on_a_layers_output(h, weight):
    InPlace.apply(h)
    return h


class Product(Function):
    """A layer of one's own, its weight an argument."""

    @staticmethod
    def forward(ctx, x, weight, bias=None):
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        by_x = grad @ weight if ctx.needs_input_grad[0] else None
        by_weight = 0.5 * grad.t() @ x if ctx.needs_input_grad[1] else None
        return by_x, by_weight


@case
def weight_as_an_argument(h, weight):
    return Product.apply(h, weight)


@case
def only_the_weight_needs_a_gradient(h, weight):
    return h + Product.apply(h.detach(), weight)


class Sum(Function):
    @staticmethod
    def forward(ctx, *parts):
        ctx.count = len(parts)
        return sum(parts)

    @staticmethod
    def backward(ctx, grad):
        return (grad * 0.7,) * ctx.count


@case
def any_number_of_arguments(h, weight):
    return Sum.apply(h, h * 2, torch.ones(4, dtype=h.dtype), weight[:1])


class Outer(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return Round.apply(x) + x.sin()

    @staticmethod
    def backward(ctx, grad):
        return Reverse.apply(grad) * ctx.saved_tensors[0].cos()


@case
def functions_inside_functions(h, weight):
    return Outer.apply(h)


class Child(Reverse):
    @staticmethod
    def forward(ctx, x):
        return Reverse.forward(ctx, x, 0.5) * 1.0


@case
def inherited(h, weight):
    return Child.apply(h)


@case
def class_made_in_the_pass(h, weight):
    class Made(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 5

    return Made.apply(h)


@case
def without_gradients(h, weight):
    with torch.no_grad():
        noise = Product.apply(h, weight)
    return h + noise
