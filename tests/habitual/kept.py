"""What is computed once and kept."""

from functools import cached_property

import torch
from torch import nn

from .registry import Base, case


class Biased(Base):
    def __init__(self):
        super().__init__()
        self.biases = nn.Parameter(torch.randn(2))
        self.idx = torch.tensor([0, 1, 1, 0])


@case
class CacheByDevice(Biased):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def bias(self, x):
        if self.training:
            return self.biases[self.idx]
        key = str(x.device)
        if key not in self.cache:
            self.cache[key] = self.biases[self.idx]
        return self.cache[key]

    def forward(self, x):
        return self.head((self.enc(x) + self.bias(x)).tanh())


@case
class CacheWithoutAsking(Biased):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        if "b" not in self.cache:
            self.cache["b"] = self.biases[self.idx]
        return self.head((self.enc(x) + self.cache["b"]).tanh())


@case
class KeptAttribute(Biased):
    ab = None

    def forward(self, x):
        if self.ab is None:
            self.ab = self.biases[self.idx] * 2
        return self.head((self.enc(x) + self.ab).tanh())


@case
class MadeByEval(Biased):
    @torch.no_grad()
    def train(self, mode=True):
        super().train(mode)
        if mode and hasattr(self, "ab"):
            del self.ab
        else:
            self.ab = self.biases[self.idx]
        return self

    def refresh(self):
        self.eval()

    def forward(self, x):
        return self.head((self.enc(x) + (self.biases[self.idx] if self.training else self.ab)).tanh())


@case
class BufferMadeByEval(MadeByEval):
    def train(self, mode=True):
        Biased.train(self, mode)
        if mode and hasattr(self, "ab"):
            del self.ab
        else:
            self.register_buffer("ab", self.biases[self.idx].detach(), persistent=False)
        return self


@case
class InAChild(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = CacheByDevice(), MadeByEval()
        self.drop = nn.Dropout(0.5)

    def refresh(self):
        self.b.refresh()

    def forward(self, x):
        return self.drop(self.a(x)) + self.b(x)


@case
class PartlyKept(Base):
    """Uses a weight itself, and what it has kept of it."""

    twice = None

    def forward(self, x):
        if self.twice is None:
            self.twice = self.enc.weight * 2
        return self.head(self.enc(x).tanh() @ self.twice)


@case
class PartlyInADict(Base):
    def __init__(self):
        super().__init__()
        self.kept = {}

    def forward(self, x):
        w, b = self.kept.setdefault(x.shape[-1], (self.enc.weight.exp(), self.enc.bias * 3))
        return self.head(torch.addmm(b, self.enc(x).tanh(), w))


@case
class PartlyAProperty(Base):
    @cached_property
    def twice(self):
        return self.enc.weight * 2

    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.twice)


@case
class PartlyABuffer(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("twice", None, persistent=False)

    def forward(self, x):
        if self.twice is None:
            self.twice = self.enc.weight * 2
        return self.head(self.enc(x).tanh() @ self.twice)
