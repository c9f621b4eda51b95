import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from saal_fast import Classification, NonFiniteError, kmeans_plusplus, score, select


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def inputs(n=20):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Flow(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


class Never(nn.Linear):
    def forward(self, x):
        raise AssertionError("work was done before the arguments were checked")


def spoiled(which, value):
    x = inputs()
    x[which] = value
    return x


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 20), st.sampled_from(["auto", "ghost", "vmap", "reference"]))
def test_the_largest_scores_the_best_first(k, engine):
    model, x = mlp(), inputs()
    picks = select(model, x, k, 0.2, engine=engine)
    assert picks.tolist() == score(model, x, 0.2).argsort(descending=True)[:k].tolist()
    assert (picks.dtype, picks.shape, picks.device.type) == (torch.int64, (k,), "cpu")


def test_of_equals_the_earlier_one_is_picked():
    x = inputs()[torch.tensor([3, 3, 0, 3, 0, 0, 3])]
    picks = select(mlp(), x, 7, engine="reference").tolist()
    assert picks in ([0, 1, 3, 6, 2, 4, 5], [2, 4, 5, 0, 1, 3, 6])
    assert picks[:2] == select(mlp(), x, 2, engine="reference").tolist()


@pytest.mark.parametrize("objective", ["max", "diff"])
@pytest.mark.parametrize("diversity", [None, "kmeans++"])
def test_the_objective_is_what_is_picked_by(objective, diversity):
    model, x = mlp(), inputs()
    scores = score(model, x, 0.5, objective=objective)
    picks = select(model, x, 6, 0.5, objective=objective, diversity=diversity, seed=3)
    assert picks[0] == scores.argmax()
    expected = scores.argsort(descending=True)[:6]
    if diversity:
        expected = kmeans_plusplus(scores - scores.min(), 6, first="argmax", seed=3)
    assert torch.equal(picks, expected)
    assert not torch.equal(score(model, x, 0.5).argsort(), score(model, x, 0.5, objective="diff").argsort())


def test_options_of_score_are_handed_on():
    model, x, labels = mlp(), inputs(), torch.arange(20) % 3
    options = {"norm": 3, "labels": labels, "params": lambda name: "0" in name, "batch_size": 3, "engine": "vmap"}
    assert torch.equal(select(model, x, 5, **options), score(model, x, **options).argsort(descending=True)[:5])


@pytest.mark.parametrize("k", [1, 2, 10, 20])
def test_kmeans_picks_are_distinct_begin_with_the_largest_and_follow_the_seed(k):
    model, x = mlp(), inputs()
    runs = [select(model, x, k, diversity="kmeans++", seed=s) for s in (0, 0, 1, 2, 3)]
    assert all(len(set(picks.tolist())) == k for picks in runs)
    assert all(picks[0] == score(model, x).argmax() for picks in runs)
    assert torch.equal(runs[0], runs[1])
    assert runs[0].dtype == torch.int64
    if k == 10:
        assert len({tuple(picks.tolist()) for picks in runs}) == 4


def test_kmeans_takes_fresh_entropy_without_a_seed():
    model, x = mlp(), inputs()
    assert len({tuple(select(model, x, 10, diversity="kmeans++").tolist()) for _ in range(5)}) > 1
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    assert torch.equal(*(select(model, x, 10, diversity="kmeans++", seed=g) for g in generators))


def test_kmeans_draws_scores_far_from_those_it_has():
    class Level(nn.Module):
        """Logits whose loss is set by the input: two near levels, and one far away."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x):
            return torch.cat([x, -x], 1) * self.scale

    x = torch.tensor([[0.0]] * 10 + [[0.001]] * 10 + [[5.0]] * 2, dtype=torch.float64)
    seconds = Counter(int(select(Level(), x, 2, 1e-4, diversity="kmeans++", seed=s)[1]) // 10 for s in range(30))
    assert seconds == {2: 30}


def test_equal_scores_are_still_picked_apart():
    x = inputs()[:1].repeat(6, 1)
    for diversity in (None, "kmeans++"):
        assert sorted(select(mlp(), x, 6, diversity=diversity).tolist()) == list(range(6))


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: x.numpy(),
        list,
        TensorDataset,
        Flow,
        lambda x: DataLoader(TensorDataset(x), batch_size=3),
        lambda x: DataLoader(Flow(x), batch_size=3),
        lambda x: {"input": x},
    ],
)
def test_every_kind_of_pool(pool):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, input):
            return self.body(input)

    assert torch.equal(select(Named(), pool(inputs()), 4), select(mlp(), inputs(), 4))
    with pytest.raises(ValueError, match=r"expected k <= 20, .*; got k=21"):
        select(Named(), pool(inputs()), 21)


@pytest.mark.parametrize("k", [np.int64(3), torch.tensor([1, 2, 3]).numel(), np.uint8(3)])
def test_any_whole_number_is_a_k(k):
    for diversity in (None, "kmeans++"):
        assert len(select(mlp(), inputs(), k, diversity=diversity)) == 3


@pytest.mark.parametrize("k", [2.0, "3", None, True, [3], torch.tensor(3), np.float32(3)], ids=repr)
def test_a_k_that_is_no_whole_number(k):
    with pytest.raises(TypeError, match=rf"expected k to be a whole number, got .*\({type(k).__name__}\)"):
        select(mlp(), inputs(), k)


@pytest.mark.parametrize("k", [0, -1])
def test_a_k_below_one(k):
    with pytest.raises(ValueError, match=f"expected k >= 1, got {k}"):
        select(mlp(), inputs(), k)


def test_a_k_above_the_pool_is_told_before_any_work():
    for pool in (inputs(), list(inputs()), TensorDataset(inputs()), DataLoader(inputs(), batch_size=6)):
        with pytest.raises(ValueError, match="expected k <= 20, the size of the pool; got k=21"):
            select(Never(4, 3), pool, 21)


@pytest.mark.parametrize("pool", [inputs(0), [], Flow([]), DataLoader(Flow([])), {"input": inputs(0)}])
def test_an_empty_pool(pool):
    with pytest.raises(ValueError, match=r"expected k <= 0, .*; got k=1"):
        select(mlp(), pool, 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"diversity": "kmeans"}, ValueError, "expected diversity to be one of None, 'kmeans\\+\\+', 'badge'; got 'kmeans'"),
        ({"diversity": True}, ValueError, "expected diversity .*; got True"),
        ({"diversity": "kmeans++", "seed": "x"}, TypeError, "expected seed .*'x'"),
        ({"diversity": "kmeans++", "seed": -1}, ValueError, r"expected 0 <= seed < 2\*\*64, got -1"),
        ({"diversity": "badge", "objective": "diff"}, ValueError, 'expected objective="max" and task=None'),
        ({"diversity": "badge", "task": Classification()}, ValueError, 'expected objective="max" and task=None'),
        ({"diversity": "badge", "seed": "x"}, TypeError, "expected seed .*'x'"),
        ({"objective": "min"}, ValueError, "expected objective .*'min'"),
        ({"rho": -1}, ValueError, "expected a finite rho >= 0, got rho=-1"),
        ({"details": True}, TypeError, "details"),
        ({"temperature": 1}, TypeError, "temperature"),
    ],
    ids=lambda value: re.sub(r" object at \w+", "", str(value)),  # an address would differ between processes
)
def test_other_arguments(options, error, message):
    with pytest.raises(error, match=message):
        select(Never(4, 3), inputs(), 2, **options)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("diversity", [None, "kmeans++", "badge"])
def test_samples_without_a_finite_score_are_never_picked(value, diversity):
    model, x = nn.Linear(4, 3).double(), spoiled([0, 7, 19], value)
    with pytest.raises(NonFiniteError, match="0, 7, 19"):
        select(model, x, 5, diversity=diversity)
    picks = select(model, x, 17, diversity=diversity, on_nonfinite="keep")
    assert sorted(picks.tolist()) == sorted(set(range(20)) - {0, 7, 19})
    with pytest.raises(ValueError, match="expected k <= 17, the samples of the pool with a finite score; got k=18"):
        select(model, x, 18, diversity=diversity, on_nonfinite="keep")


@pytest.mark.parametrize("objective", ["max", "diff"])
def test_nor_are_samples_with_infinite_logits_and_a_finite_loss(objective):
    class Certain(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            sure = torch.tensor([math.inf, 0.0, 0.0], dtype=torch.float64)
            return torch.where(x[:, :1] > 50, sure, self.body(x))

    x = spoiled([4], 99.0)
    assert score(Certain(), x, objective=objective, on_nonfinite="keep").isfinite().all()
    assert 4 not in select(Certain(), x, 19, objective=objective, on_nonfinite="keep")
    with pytest.raises(ValueError, match="expected k <= 19, the samples of the pool with a finite score; got k=20"):
        select(Certain(), x, 20, objective=objective, on_nonfinite="keep")
