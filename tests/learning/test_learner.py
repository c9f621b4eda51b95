import random

import numpy as np
import pytest
import torch
from learners import learner, network, oracle, problem, same
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from saal_fast import strategies
from saal_fast.learning import ActiveLearner, Training, run
from saal_fast.strategies import Selection, TrainingHook

IMAGES, LABELS = problem()


class Watcher(strategies.Random):
    """Random, and what it was called with."""

    def __init__(self):
        self.selected, self.trained = [], []

    def select(self, model, pool, k, *, labelled=None, generator=None):
        assert not model.training
        self.selected.append((pool.clone(), k, labelled.clone()))
        return super().select(model, pool, k, labelled=labelled, generator=generator)

    def training(self, model, *, pool=None, labelled=None, generator=None):
        self.trained.append((len(pool), len(labelled)))
        return super().training(model, pool=pool, labelled=labelled, generator=generator)


def test_a_run_is_algorithm_1():
    watcher = Watcher()
    made = learner(strategy=watcher)
    rounds = made.run(lambda rows: LABELS[rows], 3)
    assert [r.number for r in rounds] == [0, 1, 2, 3, 4]
    assert [r.labelled for r in rounds] == [0, 9, 13, 17, 21]
    assert rounds[0].asked.tolist() == list(range(9))
    assert rounds[-1].asked is None
    asked = torch.cat([r.asked for r in rounds[:-1]])
    assert len(asked.unique()) == len(asked) == 21
    rows, labels = made.labelled
    assert torch.equal(rows, asked)
    assert torch.equal(labels, LABELS[rows])
    assert watcher.trained == [(60 - n, n) for n in (9, 13, 17, 21)]
    for (pool, k, labelled), round_ in zip(watcher.selected, rounds[1:-1], strict=True):
        assert (len(pool), k, len(labelled)) == (20, 4, round_.labelled)
        assert torch.equal(labelled, IMAGES[asked[: round_.labelled]])
        among = (IMAGES[round_.asked][:, None] == pool[None]).flatten(2).all(2).any(1)
        assert among.all()  # asked for what it chose, from the candidates
        assert not (pool[:, None] == labelled[None]).flatten(2).all(2).any()
    assert all(0 <= r.metrics["accuracy"] <= 1 for r in rounds[1:])


def test_it_learns():
    made = learner(strategy="random", train=Training(epochs=40), seed=1)
    rounds = made.run(lambda rows: LABELS[rows], 5)
    assert rounds[-1].metrics["accuracy"] > 0.8  # by chance: a third
    assert rounds[-1].training["loss"] < 0.5


def test_one_seed_governs_every_draw():
    first = learner(strategy="saal")
    first.run(oracle, 2)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    again = learner(strategy="saal")
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    again.run(oracle, 2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]
    same(first, again)
    other = learner(strategy="saal", seed=4)
    other.run(oracle, 2)
    assert other.rounds[1].training != first.rounds[1].training
    assert other.rounds[1].asked.tolist() != first.rounds[1].asked.tolist()


@pytest.mark.parametrize(
    ("name", "warm_start"),
    [
        pytest.param(
            name, warm, marks=() if name in ("random", "entropy", "ll4al", "saal") and not warm else pytest.mark.slow
        )
        for name in strategies.NAMES
        for warm in (False, True)
    ],
)
def test_a_learner_made_anew_goes_on_after_every_phase(tmp_path, name, warm_start):
    def make(folder):
        options = {"latent": 4, "width": 2} if name == "vaal" else {"rho": 0.5} if name == "saal" else {}
        return learner(folder, strategy=strategies.make(name, **options), warm_start=warm_start)

    whole = make(None)
    whole.run(oracle, 2)
    for round_ in range(1, 3):
        make(tmp_path).fit()
        indices = make(tmp_path).ask()
        assert indices.tolist() == make(tmp_path).ask().tolist() == whole.rounds[round_].asked.tolist()
        labels = whole.rounds[round_].labels
        make(tmp_path).tell(indices[:1], labels[:1])
        assert make(tmp_path).ask().tolist() == indices[1:].tolist()
        make(tmp_path).tell(indices[1:].flip(0), labels[1:].flip(0))
    make(tmp_path).fit()
    same(make(tmp_path), whole)


def test_warm_start_goes_on_from_the_weights():
    untrained = Training(epochs=0)
    cold, warm = (learner(train=untrained, warm_start=w) for w in (False, True))
    weights = []
    for made in (cold, warm):
        made.fit()
        weights.append(made.model[0].weight.clone())
        made.tell(rows := made.ask(), LABELS[rows])
        made.fit()
        weights.append(made.model[0].weight.clone())
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[2], weights[3])


def test_initial_samples_can_be_asked_for():
    made = learner(labelled=None, initial=7)
    indices = made.ask()
    assert len(set(indices.tolist())) == 7
    with pytest.raises(ValueError, match="tell those of the 7 samples asked for first"):
        made.fit()
    assert made.acquired == 0
    rounds = made.run(lambda rows: LABELS[rows], 1)
    assert rounds[0].asked.tolist() == indices.tolist()
    assert [r.labelled for r in rounds] == [0, 7, 11]


def test_the_last_round_takes_what_is_left():
    made = learner(k=40, strategy="random", candidates=None)
    rounds = made.run(lambda rows: LABELS[rows], 5)
    assert [r.labelled for r in rounds] == [0, 9, 49, 60]
    assert rounds[-1].asked is None
    assert made.ask().tolist() == []
    assert made.acquired == 2


def test_a_run_can_be_made_longer(tmp_path):
    learner(tmp_path).run(oracle, 1)
    made = learner(tmp_path)
    made.run(oracle, 3)
    whole = learner()
    whole.run(oracle, 3)
    same(made, whole)


@pytest.mark.parametrize("pool", ["array", "mapping", "dataset", "list"])
def test_pools_of_any_kind_give_the_same(pool):
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, image):
            return self.inner(image)

    pools = {
        "array": IMAGES.numpy(),
        "mapping": {"image": IMAGES, "labels": torch.full((60,), 99)},
        "dataset": TensorDataset(IMAGES, torch.full((60,), 99)),
        "list": list(IMAGES),
    }
    options = {"labelled": (range(9), LABELS[:9]), "k": 4, "candidates": 20, "train": Training(epochs=2), "rounds": 1}
    made = run(Keyword, pools[pool], oracle=lambda rows: LABELS[rows], **options)
    plain = run(Keyword, IMAGES, oracle=lambda rows: LABELS[rows], **options)
    same(made, plain)


def test_labels_of_any_shape_and_a_training_of_ones_own():
    targets = torch.rand(60, 2)
    seen = []

    def train(model, labelled, hook):
        assert model.training
        assert isinstance(hook, TrainingHook)
        loader = DataLoader(labelled, batch_size=len(labelled))
        x, y = next(iter(loader))
        seen.append((x, y))
        return {"noise": float(torch.rand(()))}

    made = ActiveLearner(
        lambda: nn.Linear(36, 2),
        IMAGES.flatten(1),
        strategy="random",
        labelled=(torch.arange(3), targets[:3]),
        train=train,
        k=2,
    )
    rounds = made.run(lambda rows: targets[rows], 1)
    assert torch.equal(seen[0][1], targets[:3])
    assert torch.equal(seen[1][1], targets[torch.cat([torch.arange(3), rounds[1].asked])])
    assert torch.equal(seen[1][0], IMAGES.flatten(1)[made.labelled[0]])
    assert rounds[1].training["noise"] != rounds[2].training["noise"]
    assert made.rounds[1].metrics == {}


def test_the_hook_is_closed_when_training_fails():
    closed = []

    class Hook(TrainingHook):
        def close(self):
            closed.append(True)

    class Hooked(strategies.Random):
        def training(self, model, **_):
            return Hook()

    def train(model, labelled, hook):
        if not closed:
            raise RuntimeError("out of luck")

    made = learner(strategy=Hooked(), train=train)
    with pytest.raises(RuntimeError, match="out of luck"):
        made.fit()
    assert closed == [True]
    made.run(oracle, 1)  # and draws what it would have drawn without the failure
    whole = learner(strategy=Hooked(), train=train)
    whole.run(oracle, 1)
    same(made, whole)


@pytest.mark.parametrize("picks", [[0, 0, 1, 2], [0, 1, 2], [0, 1, 2, 20], [-1, 0, 1, 2]])
def test_a_strategy_that_answers_nonsense_is_named(picks):
    class Odd(strategies.Random):
        name = "odd"

        def select(self, model, pool, k, **_):
            return Selection(torch.tensor(picks), torch.zeros(len(pool)))

    with pytest.raises(ValueError, match=r"expected 4 different positions in \[0, 20\) from odd"):
        learner(strategy=Odd()).ask()


def test_a_strategy_that_answers_with_no_selection_is_named():
    class Odd(strategies.Random):
        name = "odd"

        def select(self, model, pool, k, **_):
            return torch.arange(k)

    with pytest.raises(TypeError, match="expected a Selection from odd, got Tensor"):
        learner(strategy=Odd()).ask()


def test_an_oracle_may_write_on_what_it_is_given():
    def spoil(rows):
        labels = LABELS[rows]
        rows.zero_()
        return labels

    made, other = (learner(strategy="random", train=Training(epochs=1)) for _ in range(2))
    made.run(spoil, 1)
    other.run(lambda rows: LABELS[rows], 1)
    same(made, other)


@pytest.mark.parametrize(("name", "options"), [("ll4al", {"width": 4}), ("vaal", {"width": 4, "latent": 3})])
def test_one_strategy_in_two_learners_chooses_as_one_in_each(name, options):
    def pair(one, two):
        return [learner(strategy=s, seed=seed, train=Training(epochs=1)) for s, seed in ((one, 3), (two, 4))]

    shared = strategies.make(name, **options)
    rows = []
    for made in (pair(shared, shared), pair(*(strategies.make(name, **options) for _ in range(2)))):
        for each in made:
            each.fit()
        rows.append([each.ask().tolist() for each in made])
    assert rows[0] == rows[1]


def test_vaal_goes_on_until_all_is_labelled(tmp_path):
    for warm_start in (False, True):
        strategy = strategies.make("vaal", width=4, latent=3)
        options = {"strategy": strategy, "k": 27, "candidates": None, "train": Training(epochs=1), "warm_start": warm_start}
        made = learner(tmp_path / str(warm_start), **options)
        made.run(oracle, 9)
        assert [r.labelled for r in made.rounds] == [0, 9, 36, 60]
        assert learner(tmp_path / str(warm_start), **options).ask().tolist() == []


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"k": 0}, ValueError, "expected k >= 1, got 0"),
        ({"k": 1.5}, TypeError, "expected k to be a whole number, got 1.5"),
        ({"candidates": 0}, ValueError, "expected candidates >= 1"),
        ({"candidates": 3}, ValueError, "expected candidates >= k=4, which are chosen from them; got 3"),
        ({"strategy": strategies.SAAL}, TypeError, "expected strategy to be a name, or an object with select"),
        ({"strategy": None}, TypeError, "expected strategy to be a name, or an object with select"),
        ({"train": 3}, TypeError, "expected train to be a function or None, got 3"),
        ({"train": Training}, TypeError, "expected train to be a function or None, got <class"),
        ({"evaluate": 3}, TypeError, "expected evaluate to be a function or None, got 3"),
        ({"warm_start": "yes"}, TypeError, "expected warm_start to be True or False, got 'yes'"),
        ({"rewrite_settings": 1}, TypeError, "expected rewrite_settings to be True or False, got 1"),
        ({"seed": None}, TypeError, "expected seed to be a whole number, got None"),
        ({"seed": "a"}, TypeError, "expected seed to be a whole number, got 'a'"),
        ({"initial": 5}, ValueError, "expected either labelled, to begin with, or initial"),
        ({"labelled": None}, ValueError, "expected either labelled, to begin with, or initial"),
        ({"labelled": None, "initial": 61}, ValueError, "expected initial <= 60"),
        ({"labelled": ([0, 60], [0, 1])}, ValueError, r"expected different positions in \[0, 60\), got \[60\]"),
        ({"labelled": ([3, 3], [0, 1])}, ValueError, r"got \[3\]"),
        ({"labelled": ([0.5], [0])}, TypeError, "expected positions as whole numbers"),
        ({"labelled": ({0: 1}, [0])}, TypeError, "expected positions as whole numbers of shape .*dict"),
        ({"labelled": ([0, 1], [0])}, ValueError, "expected labels for 2 samples"),
        ({"labelled": ([0, 1], ["cat", "dog"])}, TypeError, "expected labels as numbers, .* got 'cat'"),
        ({"labelled": ([0, 1], {0: 1, 1: 2})}, TypeError, "expected labels as numbers"),
        ({"labelled": range(3)}, TypeError, "expected labelled to be a pair, positions and their labels; got range"),
        ({"labelled": {0: 1, 1: 2}}, TypeError, "expected labelled to be a pair, positions and their labels; got dict"),
        ({"labelled": ([], [])}, ValueError, "expected at least one label to begin with; initial asks for some"),
        ({"folder": ""}, ValueError, "expected the name of a folder, got an empty one"),
        ({"settings": [1]}, TypeError, "expected settings to be a mapping, got list"),
        ({"settings": {"a": torch.ones(2)}}, TypeError, "expected settings of numbers, strings, .*Tensor is not JSON"),
        ({"seed": -1}, ValueError, "expected a seed in"),
        ({"keep_models": "some"}, ValueError, "expected keep_models to be 'last' or 'all'"),
        ({"strategy": "luck"}, ValueError, "expected the name of a strategy"),
    ],
)
def test_bad_arguments_are_reported(options, error, words):
    with pytest.raises(error, match=words):
        learner(**options)


def test_bad_models_and_pools_are_reported():
    with pytest.raises(TypeError, match="expected model to be a function that makes a model, got Sequential"):
        ActiveLearner(network(), IMAGES, initial=3)
    with pytest.raises(TypeError, match="it made str"):
        ActiveLearner(lambda: "model", IMAGES, labelled=([0], [0])).fit()
    for pool in (DataLoader(IMAGES), iter(IMAGES), "images"):
        with pytest.raises(TypeError, match="can be indexed"):
            ActiveLearner(network, pool, initial=3)
    with pytest.raises(ValueError, match="there is no model yet"):
        _ = learner().model


@pytest.mark.parametrize("returned", [{"loss": "low"}, {"loss": torch.ones(2)}, [0.5]])
def test_numbers_that_are_none_are_reported(returned):
    with pytest.raises(TypeError, match="expected train to give numbers by name, or None"):
        learner(train=lambda *_: returned).fit()
    with pytest.raises(TypeError, match="expected evaluate to give numbers by name, or None"):
        learner(evaluate=lambda _: returned).fit()


def test_tensors_and_arrays_are_numbers_too(tmp_path):
    made = learner(tmp_path, train=lambda *_: {"a": torch.tensor(2)}, evaluate=lambda _: {"b": np.float32(0.5)})
    made.fit()
    assert (made.rounds[1].training, made.rounds[1].metrics) == ({"a": 2.0}, {"b": 0.5})


def test_bars_are_shown_when_asked_for(capsys):
    learner(progress=True, train=None, strategy="random").run(oracle, 2)
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "rounds: 100%" in shown
    learner(progress=False, train=None, strategy="random").run(oracle, 1)
    assert not capsys.readouterr().err
