"""The new form, with a `setup_context`: without a rule for `vmap`, and with one."""

import torch.nn.functional as F
from torch.autograd import Function

from .registry import case


class Apart(Function):
    @staticmethod
    def forward(x, scale):
        return x * scale

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output)
        ctx.scale = inputs[1]

    @staticmethod
    def backward(ctx, grad):
        x, out = ctx.saved_tensors
        return grad * ctx.scale * 0.5 + 0.01 * x * out, None


@case
def setup_context_without_a_rule(h, weight):
    return Apart.apply(h, 1.5)


class Ruled(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight):
        return F.linear(x, weight)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight, 2 * grad.mT @ x


@case
def weight_as_an_argument_with_a_rule(h, weight):
    return Ruled.apply(h, weight)
