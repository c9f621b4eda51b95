"""How a model is registered, and what the models here have in common."""

import torch
from torch import nn

ENGINES = ("auto", "ghost", "vmap", "reference")


MODELS, BY_REFERENCE, AUTOGRAD = {}, set(), set()


def case(build=None, *, reference=False, autograd=False):
    """Registers a model; `reference`: no engine but the reference runs it; `autograd`: the true gradient is its."""

    def register(cls):
        MODELS[cls.__name__] = cls
        if reference:
            BY_REFERENCE.add(cls.__name__)
        if autograd:
            AUTOGRAD.add(cls.__name__)
        return cls

    return register if build is None else register(build)


def make(name):
    torch.manual_seed(0)
    return MODELS[name]().double()


def pool(count=3):
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.head = nn.Linear(4, 4), nn.Linear(4, 3)


def linked(model):
    """`.double()` keeps Parameter objects but not their memory: what a model keeps of it is made after."""
    model.double()
    return model


def twice(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.matmul(x, w).tanh()
