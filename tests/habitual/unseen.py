"""Uses of parameters that a function mode does not see."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from .registry import Base, case, twice


@case
class Scripted(Base):
    def __init__(self):
        super().__init__()
        self.again = torch.jit.script(twice)

    def forward(self, x):
        return self.head(self.again(self.enc(x).tanh(), self.enc.weight))


@case
class Traced(Base):
    def __init__(self):
        super().__init__()
        self.again = torch.jit.trace(twice, (torch.zeros(2, 4).double(), torch.zeros(4, 4).double()))

    def forward(self, x):
        return self.head(self.again(self.enc(x).tanh(), self.enc.weight))


class Sub(torch.Tensor):
    pass


@case
class AsSubclass(Base):
    def forward(self, x):
        y = self.enc(x).tanh() @ self.enc.weight.as_subclass(Sub)
        return self.head(y.as_subclass(torch.Tensor))


@case(autograd=True)
class ParameterOfAParameter(Base):
    def forward(self, x):
        return self.head(self.enc(x).tanh() @ nn.Parameter(self.enc.weight))


@case(autograd=True)
class Copied(Base):
    def forward(self, x):
        return self.head(self.enc(x).tanh() @ copy.copy(self.enc.weight))


@case
class OpsByName(Base):
    def forward(self, x):
        return self.head(torch.ops.aten.mm(self.enc(x).tanh(), self.enc.weight))


@case
class ThroughAView(Base):
    def forward(self, x):
        return self.head(F.linear(self.enc(x).tanh(), self.enc.weight.mT)) + F.linear(self.enc.weight[:1], self.head.weight)


class Times(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, w):
        return x @ w

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w.mT, x.mT @ g


@case
class OwnFunction(Base):
    def forward(self, x):
        return self.head(Times.apply(self.enc(x).tanh(), self.enc.weight))


@case
class Checkpointed(Base):
    def forward(self, x):
        return self.head(torch.utils.checkpoint.checkpoint(twice, self.enc(x).tanh(), self.enc.weight, use_reentrant=False))
