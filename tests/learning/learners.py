"""A small problem that all tests of the loop share."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from saal_fast.learning import Accuracy, ActiveLearner, Training

CLASSES, SIDE, SIZE = 3, 6, 60


def problem(size=SIZE, seed=0):
    """Images [size, 1, 6, 6] of three classes, a bright row each, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % CLASSES
    images = torch.randn(size, 1, SIDE, SIDE, generator=generator)
    images[torch.arange(size), 0, 2 * labels] += 3
    return images, labels


def network():
    """Batch norm, dropout and two layers with hidden maps: what a state dict and a seed must both get right."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


def learner(folder=None, **options):
    """A learner of the problem, with nine labels to begin with."""
    images, labels = problem()
    given = {
        "labelled": (torch.arange(9), labels[:9]),
        "strategy": "saal",
        "k": 4,
        "candidates": 20,
        "train": Training(epochs=2, batch_size=5),
        "evaluate": Accuracy(*problem(40, seed=1)),
        "seed": 3,
        "folder": folder,
    }
    return ActiveLearner(network, images, **(given | options))


def oracle(indices):
    """The true labels, and a draw from a global generator, which a seed must govern as well."""
    labels = problem()[1][indices]
    return torch.where(torch.rand(len(labels)) < 0.1, (labels + 1) % CLASSES, labels)


def contents(folder):
    """What a run has written, its log (which tells the time) left out."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.suffix in (".json", ".pt")}


def same(a, b):
    """Whether two runs did the same, bit for bit."""

    def plain(rounds):
        return [
            (r.number, r.labelled, r.training, r.metrics, *(None if t is None else t.tolist() for t in (r.asked, r.labels)))
            for r in rounds
        ]

    assert plain(a.rounds) == plain(b.rounds)
    for name, tensor in a.model.state_dict().items():
        assert torch.equal(tensor, b.model.state_dict()[name]), name
