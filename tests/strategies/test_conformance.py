"""What holds of every strategy, whatever it chooses by."""

import random

import numpy as np
import pytest
import small
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from saal_fast import NonFiniteError, strategies

OPTIONS = {
    "vaal": {"width": 4, "latent": 3},
    "ll4al": {"width": 8},
}
VARIANTS = {
    **{name: (name, OPTIONS.get(name, {})) for name in strategies.NAMES},
    "saal diverse": ("saal", {"diversity": "kmeans++"}),
    "saal diff adaptive": ("saal", {"objective": "diff", "adaptive": True}),
    "saal inf": ("saal", {"norm": float("inf")}),
    "coreset robust": ("coreset", {"robust": True}),
}
ALL = list(VARIANTS)
DRAWING = {"random", "saal diverse", "badge"}  # whose choice depends on the generator

SLOWLY = {"saal diff adaptive", "saal inf"}
TRAINED = {"vaal", "ll4al"}
BY_SCORES = {"saal", "saal diverse"}  # score goes sample by sample here: the network draws random numbers


def names(*slowly):
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOWLY.union(*slowly) else n for n in ALL]


every = pytest.mark.parametrize("name", names())
untrained = pytest.mark.parametrize("name", names(TRAINED))


def make(name, **options):
    kind, own = VARIANTS[name]
    return strategies.make(kind, **own, **options)


def keeping(name):
    """The strategy that keeps what is not finite and never picks it."""
    keep = {"on_nonfinite": "keep"}
    return make(name, options=keep) if name.startswith("saal") else make(name, **keep)


def choose(name, pool, k, seed=0, labelled=None, strategy=None, model=None):
    model = small.network() if model is None else model
    strategy = make(name) if strategy is None else strategy
    small.ready(strategy, model)
    return strategy.select(model, pool, k, labelled=labelled, generator=small.seeded(seed))


class Flow(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


@untrained
def test_a_generator_that_is_none_is_refused(name):
    strategy, model = make(name), small.network()
    small.ready(strategy, model)
    with pytest.raises(TypeError, match=r"expected generator to be a torch\.Generator or None, got int"):
        strategy.select(model, small.images(5), 2, labelled=small.images(4, seed=9), generator=3)


def check_choice(name, k):
    chosen = choose(name, small.images(13), k, labelled=small.images(5, seed=9))
    assert (chosen.indices.dtype, chosen.indices.shape, chosen.indices.device.type) == (torch.int64, (k,), "cpu")
    assert len(set(chosen.indices.tolist())) == k
    assert chosen.indices.min() >= 0
    assert chosen.indices.max() < 13
    assert (chosen.scores.dtype, chosen.scores.shape, chosen.scores.device.type) == (torch.float32, (13,), "cpu")
    assert name == "random" or chosen.scores.isfinite().all()


@pytest.mark.parametrize("name", names(TRAINED, BY_SCORES))
@pytest.mark.parametrize("k", [1, 13])
def test_k_is_one_or_the_whole_pool(name, k):
    check_choice(name, k)


@every
def test_k_different_positions_and_a_score_for_every_sample(name):
    check_choice(name, 4)


@every
def test_it_follows_the_protocol_and_says_its_name(name):
    strategy = make(name)
    assert isinstance(strategy, strategies.Strategy)
    assert strategy.name == VARIANTS[name][0]
    assert strategy.name in strategies.NAMES


@pytest.mark.parametrize("name", names({"saal diverse"}))
def test_a_choice_is_repeated_by_its_seed(name):
    pool = small.images(20)
    first, again, other = (choose(name, pool, 5, seed=s) for s in (3, 3, 4))
    assert torch.equal(first.indices, again.indices)
    assert torch.equal(first.scores.nan_to_num(-1), again.scores.nan_to_num(-1))
    assert torch.equal(first.scores.nan_to_num(-1), other.scores.nan_to_num(-1))
    assert (name in DRAWING or "coreset" in name) or torch.equal(first.indices, other.indices)


@pytest.mark.parametrize("name", sorted(DRAWING))
def test_another_seed_draws_another_choice(name):
    pool = small.images(24)
    assert len({tuple(choose(name, pool, 6, seed=s).indices.tolist()) for s in range(3)}) > 1


@every
def test_a_generator_moves_on(name):
    generator, model, pool = small.seeded(0), small.network(), small.images(24)
    strategy = make(name)
    small.ready(strategy, model)
    times = 3 if name in DRAWING else 2
    choices = {tuple(strategy.select(model, pool, 6, generator=generator).indices.tolist()) for _ in range(times)}
    assert name not in DRAWING or len(choices) > 1


@untrained
@pytest.mark.parametrize(("k", "error", "words"), [
    (14, ValueError, "k <= 13.*got k=14"), (0, ValueError, "k >= 1.*got (k=)?0"), (-1, ValueError, "k >= 1.*got (k=)?-1"),
    (2.0, TypeError, "whole number.*2.0"), (True, TypeError, "whole number.*True"),
])  # fmt: skip
def test_a_k_that_the_pool_cannot_give_is_an_error(name, k, error, words):
    with pytest.raises(error, match=words):
        choose(name, small.images(13), k)


@pytest.mark.parametrize("name", names(TRAINED, {"saal diverse"}))
def test_more_than_a_stream_of_unknown_length_holds_is_an_error(name):
    with pytest.raises(ValueError, match="k <= 3"):
        choose(name, Flow(list(small.images(3))), 4)


@untrained
def test_an_empty_pool_is_an_error(name):
    with pytest.raises(ValueError, match="k <= 0"):
        choose(name, small.images(0), 1)


@pytest.mark.parametrize("name", names(TRAINED, {"saal diverse"}))
def test_of_equal_samples_different_ones_are_chosen(name):
    pool = small.images(1).repeat(6, 1, 1, 1)
    assert sorted(choose(name, pool, 6).indices.tolist()) == list(range(6))
    labelled = choose(name, pool, 4, labelled=pool[:2]).indices.tolist()
    assert len(set(labelled)) == 4


@pytest.mark.parametrize("name", names(TRAINED, {"saal diverse"}))
def test_a_pool_of_one_sample(name):
    chosen = choose(name, small.images(1), 1)
    assert chosen.indices.tolist() == [0]
    assert chosen.scores.shape == (1,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, marks=pytest.mark.slow if name in slowly else ())
        for value, slowly in ((torch.nan, {"saal diverse"}), (torch.inf, TRAINED | BY_SCORES))
        for name in ALL
        if name not in {"random", *SLOWLY}  # which does not look at samples
    ],
)
def test_what_is_not_finite_is_an_error_or_never_picked(name, value):
    pool = small.images(9)
    pool[[2, 5], 0, 3, 3] = value
    with pytest.raises(NonFiniteError, match=r"\b2, 5\b"):
        choose(name, pool, 3)
    chosen = choose(name, pool, 7, strategy=keeping(name))
    assert sorted(chosen.indices.tolist()) == [0, 1, 3, 4, 6, 7, 8]
    with pytest.raises(ValueError, match=r"k <= 7.*finite"):
        choose(name, pool, 8, strategy=keeping(name))


@pytest.mark.parametrize("name", names({"saal diverse"}))
def test_the_model_and_the_generators_come_back_as_they_were(name):
    model, strategy = small.network(), make(name)
    small.ready(strategy, model)

    def portrait():
        return (
            {n: (id(t), t.numpy(force=True).tobytes()) for n, t in model.state_dict(keep_vars=True).items()},
            {n: (m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()},
            {n: None if p.grad is None else p.grad.clone().numpy().tobytes() for n, p in model.named_parameters()},
            model[4].calls,
            (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()),
        )

    before = portrait()
    strategy.select(model, small.images(9), 3, labelled=small.images(4, seed=9), generator=small.seeded(0))
    bad = small.images(9)
    bad[4] = torch.nan
    strategy.select(model, small.images(9), 3)
    if name != "random":
        with pytest.raises(NonFiniteError):
            strategy.select(model, bad, 3)
    assert portrait() == before
    assert model.training


@pytest.mark.parametrize("name", names({"saal diverse", "coreset robust"}))
def test_pools_of_every_kind_are_chosen_from_alike(name):
    model, strategy, x = small.network(), make(name), small.images(11)
    small.ready(strategy, model)
    data = TensorDataset(x, torch.zeros(11))
    pools = [x, x.numpy(), data, DataLoader(data, batch_size=4), list(x), Flow(list(x))]
    state = torch.get_rng_state()
    chosen = [strategy.select(model, p, 4, labelled=p, generator=small.seeded(1)) for p in pools]
    assert torch.equal(torch.get_rng_state(), state)  # a DataLoader draws a seed whenever it is begun
    for other in chosen[1:]:
        assert torch.equal(chosen[0].indices, other.indices)
        torch.testing.assert_close(chosen[0].scores, other.scores, equal_nan=True, rtol=1e-4, atol=1e-5)


@every
def test_training_under_the_hook_is_repeated_by_its_seed_and_draws_from_no_global_generator(name):
    x, y, pool = small.images(10, seed=2), torch.arange(10) % small.CLASSES, small.images(20, seed=3)
    outcomes = []
    for noise in (0, 1):
        model, strategy = small.network().eval(), make(name)  # without dropout
        model[4].forward = lambda x: x  # and without the layer that draws
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        small.train(strategy, model, x, y, unlabelled=pool, generator=small.seeded(7))
        assert torch.equal(torch.get_rng_state(), state)
        outcomes.append((model.state_dict(), strategy.select(model, pool, 5, generator=small.seeded(2))))
    (one, chosen), (two, again) = outcomes
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(chosen.indices, again.indices)
    assert torch.equal(chosen.scores.nan_to_num(-1), again.scores.nan_to_num(-1))


@every
def test_a_closed_hook_leaves_nothing_on_the_model(name):
    model = small.network()
    hook = make(name).training(model, pool=small.images(6), labelled=small.images(6), generator=small.seeded(0))
    hook.close()
    hook.close()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", names(BY_SCORES))
def test_training_goes_on_from_a_saved_state(name):
    x, y, pool = small.images(12, seed=2), torch.arange(12) % small.CLASSES, small.images(20, seed=3)
    whole, parts = small.network().eval(), small.network().eval()
    unbroken, before, after = make(name), make(name), make(name)
    small.train(unbroken, whole, x, y, unlabelled=pool, generator=small.seeded(5), epochs=range(4), of=4)
    state = {}
    small.train(before, parts, x, y, unlabelled=pool, generator=small.seeded(5), epochs=range(2), of=4, save=state)
    small.train(after, parts, x, y, unlabelled=pool, generator=small.seeded(6), epochs=range(2, 4), of=4, resume=state)
    weights = parts.state_dict()
    assert all(torch.equal(t, weights[key]) for key, t in whole.state_dict().items())
    one, two = (s.select(m, pool, 5, generator=small.seeded(1)) for s, m in ((unbroken, whole), (after, parts)))
    assert torch.equal(one.indices, two.indices)
    assert torch.equal(one.scores.nan_to_num(-1), two.scores.nan_to_num(-1))


def test_an_unknown_name_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"saal, random, .*vaal.*; got 'entropie'"):
        strategies.make("entropie")


def test_an_unknown_option_is_an_error():
    with pytest.raises(TypeError, match="colour"):
        strategies.make("entropy", colour=1)


@pytest.mark.parametrize("name", [n for n in strategies.NAMES if n not in ("random", "saal")])
def test_a_way_to_take_nonfinite_that_there_is_not_is_an_error(name):
    with pytest.raises(ValueError, match="'raise', 'keep'; got 'drop'"):
        strategies.make(name, on_nonfinite="drop")


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("vaal", {"latent": 0}, ValueError),
        ("vaal", {"width": 0}, ValueError),
        ("ll4al", {"width": 0}, ValueError),
        ("ll4al", {"stop": "x"}, TypeError),
    ],
)
def test_numbers_that_no_network_has_are_refused_when_it_is_made(name, options, error):
    with pytest.raises(error, match=f"expected {next(iter(options))}"):
        strategies.make(name, **options)
