"""What a pass changes."""

import torch

from .registry import Base, case


@case(reference=True)
class Counts(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return self.head(self.enc(x).tanh() * self.seen)


@case(reference=True, autograd=True)
class MovingAverage(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        y = self.enc(x)
        self.mean.mul_(0.5).add_(y.detach().mean(0), alpha=0.5)
        return self.head((y - self.mean).tanh())


@case
class Appends(Base):
    def __init__(self):
        super().__init__()
        self.past = []

    def forward(self, x):
        self.past.append(self.enc(x))
        return self.head(sum(self.past).tanh())


@case
class AsksForGradMode(Base):
    def forward(self, x):
        y = self.enc(x)
        return self.head(y.tanh() if torch.is_grad_enabled() else y)


class Counter:
    def __init__(self):
        self.passes, self.kept, self.past = 0, {}, []


class Counting(Base):
    """Has an object of a class that is no module."""

    def __init__(self):
        super().__init__()
        self.counter = Counter()


@case
class CountsInAnObject(Counting):
    def forward(self, x):
        self.counter.passes += 1
        return self.head((self.enc(x) * self.counter.passes).tanh())


@case
class KeepsInAnObject(Counting):
    def forward(self, x):
        if "w" not in self.counter.kept:
            self.counter.kept["w"] = self.enc.weight * 2
        return self.head(self.enc(x).tanh() @ self.counter.kept["w"])


@case
class AppendsInAnObject(Counting):
    def forward(self, x):
        self.counter.past.append(self.enc(x))
        return self.head(sum(self.counter.past).tanh())
