"""What tests of the self-check share: a model, its inputs, and engines that are wrong."""

import math
from functools import partial

import torch
from torch import nn

from saal_fast import score
from saal_fast.engines import ENGINES
from saal_fast.scoring import ScoreOptions, score_pool
from saal_fast.scoring.runner import Runner

RULES = {
    "L2": {"rho": 0.3},
    "L1.5": {"rho": 0.3, "norm": 1.5},
    "Linf": {"rho": 0.01, "norm": math.inf},
    "adaptive": {"rho": 0.2, "adaptive": True},
    "none": {"rho": 0.0},
    "huge": {"rho": 1e3},
}


def inputs(n=8, width=5, seed=1):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def mlp(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), *middle, nn.Linear(6, 4))


def checked(model, pool=None, **options):
    return score(model, inputs() if pool is None else pool, details=True, **options).checked


class Wrong:
    """An engine whose numbers are off by a factor, of some samples of a batch."""

    def __init__(self, problem, quantity="grad_norm", factor=1.1, least=1):
        self.inner, self.quantity, self.factor, self.least = ENGINES["ghost"](problem), quantity, factor, least

    def __call__(self, batch):
        result = self.inner(batch)
        if batch.size < self.least:
            return result
        return result._replace(**{self.quantity: getattr(result, self.quantity) * self.factor})

    def sample_bytes(self, example):
        return self.inner.sample_bytes(example)


def by(engine, model=None, **options):
    engines = ENGINES | {"ghost": engine}
    runner = partial(Runner, engines=engines, capture=lambda engine, device: engine)
    return score_pool(mlp() if model is None else model, inputs(), ScoreOptions.of(0.05, options), runner)
