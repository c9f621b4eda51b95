"""How a function is registered, and the model that uses it."""

import torch
from torch import nn

FUNCTIONS = {}


def case(used):
    """Registers a function h, weight → h', both [n, 4]; the weight is [4, 4]."""
    FUNCTIONS[used.__name__] = used
    return used


class Net(nn.Module):
    def __init__(self, used):
        super().__init__()
        self.enc, self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 3)
        self.used = used

    def forward(self, x):
        h = self.used(self.enc(x), self.mix.weight)
        return self.head(h.tanh() + 0.1 * self.mix(x))


def make(name):
    torch.manual_seed(0)
    return Net(FUNCTIONS[name]).double()


def pool(count=4):
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
