import pytest
import torch
from torch import nn

from saal_fast.experiments.demo.training import train
from saal_fast.learning import Accuracy


@pytest.fixture
def separable():
    labels = torch.arange(65) % 2
    images = torch.randn(65, 1, 4, 4, generator=torch.Generator().manual_seed(0)) + 4 * labels.view(-1, 1, 1, 1)
    return images, labels


def fitted(images, labels, seed=0, epochs=20):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    # 65 images by 32 leave a last batch of one, which batch norm could not take.
    train(model, images, labels, epochs=epochs, seed=seed, learning_rate=1e-2)
    return model


def test_training_learns_and_ends_in_evaluation(separable):
    model = fitted(*separable)
    assert not model.training
    assert Accuracy(*separable)(model)["accuracy"] > 0.95


def test_training_follows_the_seed_and_leaves_the_global_one(separable):
    state = torch.get_rng_state()
    first, again, other = (fitted(*separable, seed=seed, epochs=2)[1].weight for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
    assert torch.get_rng_state().equal(state)
