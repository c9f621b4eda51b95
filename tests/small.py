"""A small network, samples for it, and a training loop that serves every strategy alike."""

import copy
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 4


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def images(n, seed=1, dtype=torch.float32):
    return torch.randn(n, 2, 8, 8, generator=seeded(seed), dtype=dtype)


class Drawing(nn.Module):
    """Passes its input on; draws random numbers and counts calls on the way, as some models do."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.register_buffer("sum", torch.zeros(()))

    def forward(self, x):
        random.random()
        np.random.rand()
        torch.rand(1)
        self.calls += 1
        self.sum += 1
        return x


def network():
    """With batch norm, dropout and a layer that keeps state, in training mode: all that scoring must put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), Drawing(),
            nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Dropout(0.3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES),
        )  # fmt: skip
        model(images(30, seed=5) + 1)
        for p in model[-1].parameters():
            p.data *= 3
    return model


def train(strategy, model, x, y, *, unlabelled, generator, epochs=range(2), of=2, batch=4, lr=1e-2, resume=None, save=None):
    """A plain loop under the strategy's hook, batch by batch in order; gives the values that the hook added.

    It loads the hook's state from `resume` and puts the state at the end into the dict `save`.
    """
    hook = strategy.training(model, pool=unlabelled, labelled=x, generator=generator)
    if resume is not None:
        hook.load_state_dict(resume)
    groups = [{"params": list(model.parameters())}, {"params": hook.parameters()}]
    optimizer = torch.optim.SGD([g for g in groups if g["params"]], lr=lr)
    added = []
    try:
        for epoch in epochs:
            hook.start_epoch(epoch, of)
            for xs, ys in zip(x.split(batch), y.split(batch), strict=True):
                losses = F.cross_entropy(model(xs), ys, reduction="none")
                extra = hook.loss(xs, ys, losses)
                added.append(None if extra is None else extra.item())
                optimizer.zero_grad()
                (losses.mean() if extra is None else losses.mean() + extra).backward()
                optimizer.step()
                hook.after_step(xs, ys)
        if save is not None:
            save.update(copy.deepcopy(hook.state_dict()))
    finally:
        hook.close()
    return added


def ready(strategy, model, seed=7):
    """The strategy, trained for a moment along with the model, where it trains something."""
    if strategy.name in ("ll4al", "vaal"):
        x, y = images(10, seed=2), torch.arange(10) % CLASSES
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # dropout's
            train(strategy, model, x, y, unlabelled=images(20, seed=3), generator=seeded(seed))
    return strategy
