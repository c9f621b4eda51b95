"""SAAL on real images: scikit-learn's digits, a small network, three fixed seeds."""

import pytest
import torch
from torch import nn

from saal_fast.experiments.datasets import balanced
from saal_fast.experiments.paper.splits import load_split
from saal_fast.learning import Accuracy, Training, run
from saal_fast.strategies import SAAL, Random

SEEDS = (0, 1, 2)
ROUNDS = 15


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def mean_over_the_curve(strategy, seed, digits):
    """Mean test accuracy of the models that have learnt from 20, 30, ..., 170 labels, in percent."""
    order = torch.randperm(len(digits.labels), generator=torch.Generator().manual_seed(seed))
    rows = order[balanced(digits.labels[order], 10, 20)]
    learner = run(
        network,
        digits.images,
        oracle=lambda asked: digits.labels[asked],
        rounds=ROUNDS,
        strategy=strategy,
        labelled=(rows, digits.labels[rows]),
        candidates=500,
        train=Training(progress=False),
        evaluate=Accuracy(digits.test_images, digits.test_labels),
        seed=seed,
        progress=False,
    )
    accuracies = [r.metrics["accuracy"] for r in learner.rounds if r.labelled]
    assert len(accuracies) == ROUNDS + 1
    return 100 * sum(accuracies) / len(accuracies)


@pytest.mark.slow
def test_saal_beats_random_over_the_curve():
    """Measured when this was written: by 2.7, 4.2 and 3.3 points (random: 87.0, 87.6, 88.0 %)."""
    digits = load_split("digits")
    ahead = [
        mean_over_the_curve(SAAL(options={"batch_size": 100}), seed, digits) - mean_over_the_curve(Random(), seed, digits)
        for seed in SEEDS
    ]
    assert all(points > 0 for points in ahead), ahead
    assert sum(ahead) / len(ahead) > 2, ahead
