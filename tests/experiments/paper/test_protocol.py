from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

import saal_fast
from saal_fast import strategies
from saal_fast.experiments.paper.protocol import STRATEGIES, protocol
from saal_fast.experiments.paper.splits import CLASSES


@pytest.mark.parametrize("dataset", ["fashion-mnist", "svhn", "cifar10"])
@pytest.mark.parametrize("optimizer", ["adam", "sam"])
def test_the_papers_protocol(dataset, optimizer):
    p = asdict(protocol("paper", dataset, optimizer))
    assert {k: p[k] for k in ("initial", "candidates", "k", "rounds", "epochs", "batch_size", "learning_rate")} == {
        "initial": 20,
        "candidates": 2000,
        "k": 10,
        "rounds": 100,
        "epochs": 50,
        "batch_size": 10,
        "learning_rate": 1e-3,
    }
    assert (p["width"], p["stem_stride"], p["tested"]) == (64, 1, None)


def test_the_papers_protocol_of_cifar100():
    adam, sam = (protocol("paper", "cifar100", optimizer) for optimizer in ("adam", "sam"))
    assert (adam.initial, adam.k, adam.rounds, adam.candidates) == (1000, 100, 100, 2000)
    assert (adam.learning_rate, sam.learning_rate) == (1e-3, 1e-1)


def test_optimisers():
    weights = [nn.Parameter(torch.ones(3))]
    adam = protocol("paper", "svhn", "adam").optimiser([{"params": weights}])
    assert type(adam) is torch.optim.Adam
    assert (adam.defaults["lr"], adam.defaults["weight_decay"]) == (1e-3, 0)
    sam = protocol("paper", "cifar100", "sam").optimiser([{"params": weights}])
    assert type(sam) is saal_fast.SAM
    assert type(sam.base_optimizer) is torch.optim.SGD
    group = sam.param_groups[0]
    assert {k: group[k] for k in ("lr", "momentum", "rho", "adaptive")} == {
        "lr": 1e-1,
        "momentum": 0.9,
        "rho": 0.05,
        "adaptive": False,
    }


@pytest.mark.parametrize("dataset", CLASSES)
def test_the_cpu_preset_cuts_and_changes_nothing_else(dataset):
    paper, cpu = (asdict(protocol(preset, dataset, "adam")) for preset in ("paper", "cpu"))
    for name in ("width", "candidates", "epochs", "rounds", "vae_width"):
        assert cpu[name] < paper[name]
    same = {"dataset", "optimizer", "batch_size", "learning_rate"}
    assert {name: cpu[name] for name in same} == {name: paper[name] for name in same}


def test_the_first_labels_are_balanced_and_the_seeds(digits):
    p = protocol("paper", "digits", "adam")
    rows, labels = p.start(digits, 0)
    assert labels.bincount().tolist() == [2] * 10
    assert torch.equal(labels, digits.labels[rows])
    assert len(rows.unique()) == 20
    assert torch.equal(p.start(digits, 0)[0], rows)
    assert not torch.equal(p.start(digits, 1)[0], rows)


def test_test_images_lie_evenly(digits, small):
    evaluation = replace(small(), tested=50).evaluation(digits)
    rows = [i * 359 // 50 for i in range(50)]
    assert torch.equal(evaluation.inputs, digits.test_images[rows])
    assert torch.equal(evaluation.labels, digits.test_labels[rows])
    assert len(protocol("paper", "digits", "adam").evaluation(digits).labels) == 359


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_made(name):
    made = protocol("cpu", "digits", "adam").strategy(name)
    assert isinstance(made, strategies.Strategy)
    assert made.name == STRATEGIES[name][0]
    if isinstance(made, strategies.SAAL):
        assert made.rho == 0.05
        assert made.options["batch_size"] == 125


def test_saals_kinds_differ():
    p = protocol("cpu", "digits", "adam")
    kinds = {(s.objective, s.diversity, s.adaptive) for s in map(p.strategy, STRATEGIES) if isinstance(s, strategies.SAAL)}
    assert kinds == {("max", None, False), ("max", "kmeans++", False), ("diff", None, False), ("max", None, True)}


def test_unknown_names_are_refused():
    for names, words in (
        (("quick", "digits", "adam"), "unknown preset 'quick': expected one of paper, cpu"),
        (("cpu", "mnist", "adam"), "unknown data set 'mnist'"),
        (("cpu", "digits", "sgd"), "unknown optimizer 'sgd': expected one of adam, sam"),
    ):
        with pytest.raises(ValueError, match=words):
            protocol(*names)
    with pytest.raises(ValueError, match="expected strategies among random, entropy"):
        protocol("cpu", "digits", "adam").strategy("luck")


def test_settings_in_place_of_the_presets():
    changed = protocol("cpu", "fashion-mnist", "adam", width=8, rounds=None, epochs=25, candidates=600)
    assert (changed.width, changed.rounds, changed.epochs, changed.candidates) == (8, 12, 25, 600)
    assert changed.name == "adam-cpu-candidates600-width8"  # 25 epochs are the preset's
    assert changed.title == "preset cpu, candidates 600, width 8"
    assert protocol("cpu", "fashion-mnist", "adam").name == "adam-cpu"
    with pytest.raises(ValueError, match="expected width >= 1, got 0"):
        protocol("cpu", "digits", "adam", width=0)
    with pytest.raises(ValueError, match="expected candidates >= 20, which are chosen from them each round; got 19"):
        protocol("cpu", "cifar100", "adam", candidates=19)
