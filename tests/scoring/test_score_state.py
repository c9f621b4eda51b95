"""The model, its gradients and the random number generators come back bit for bit, however scoring ends."""

import contextlib
import random

import numpy as np
import pytest
import torch
from torch import nn

from saal_fast import EngineError, NonFiniteError, score, select

ENGINES = ["auto", "ghost", "vmap", "reference"]
FP64 = {"rtol": 1e-9, "atol": 1e-12}


class Hook(nn.Module):
    """Passes its input on, and calls `self.at` with it; draws random numbers on the way, if told to."""

    def __init__(self, draws):
        super().__init__()
        self.draws = draws
        object.__setattr__(self, "at", None)

    def forward(self, x):
        if self.draws:
            random.random()
            np.random.rand()
        if self.at is not None:
            self.at(x)
        return x


def build(at=None, draws=False):
    """A model of which every state differs from the default."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), Hook(draws), nn.Dropout(0.5), nn.Linear(6, 3), nn.Linear(3, 3)
    ).double()
    model[5].bias.requires_grad_(False)
    model(inputs(20) + 1).square().sum().backward()  # gradients, and statistics other than 0 and 1
    model[1].eval()  # a batch norm frozen by hand
    model[0].weight.grad = None
    object.__setattr__(model[3], "at", at)
    return model


def inputs(n=10):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def portrait(model):
    """All there is to see, as bytes, flags and identities."""
    state = {
        name: (id(t), t.numpy(force=True).tobytes(), t._version) for name, t in model.state_dict(keep_vars=True).items()
    }
    grads = {
        n: (p.requires_grad, id(p.grad), None if p.grad is None else p.grad.numpy().tobytes())
        for n, p in model.named_parameters()
    }
    modes = {n: m.training for n, m in model.named_modules()}
    generators = (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes())
    return state, grads, modes, generators


@contextlib.contextmanager
def unchanged(model):
    before = portrait(model)
    yield
    after = portrait(model)
    for what, a, b in zip(("state", "gradients", "modes", "generators"), before, after, strict=True):
        assert a == b, what


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", [{}, {"norm": 3}, {"adaptive": True}, {"batch_size": 3}, {"details": True}], ids=str)
def test_after_scoring(engine, options):
    model = build(draws=engine in ("auto", "reference"))
    with unchanged(model):
        score(model, inputs(), engine=engine, **options)


@pytest.mark.parametrize("diversity", [None, "kmeans++"])
@pytest.mark.parametrize("seed", [None, 0])
def test_after_selecting(diversity, seed):
    model = build(draws=True)
    with unchanged(model):
        select(model, inputs(), 3, diversity=diversity, seed=seed)


FAILURES = [
    pytest.param(
        nth, error, engine, marks=() if error in (RuntimeError, KeyboardInterrupt) or nth == 4 else pytest.mark.slow
    )
    for nth in (1, 2, 3, 4, 6, 9)
    for error in (RuntimeError, KeyboardInterrupt, SystemExit, torch.OutOfMemoryError, MemoryError)
    for engine in ENGINES
]


@pytest.mark.parametrize(("nth", "error", "engine"), FAILURES)
def test_after_an_error_from_the_nth_forward_pass_on(engine, error, nth):
    calls = 0

    def at(x):
        nonlocal calls
        calls += 1
        if calls >= nth:
            raise error(f"call {nth}")

    model = build(at, draws=engine in ("auto", "reference"))
    with unchanged(model), pytest.raises(error, match=f"call {nth}"):
        score(model, inputs(), engine=engine, batch_size=2)


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError, MemoryError])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_interrupt_or_want_of_memory_is_not_tried_again(error, engine):
    calls = 0

    def at(x):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise error

    model = build(at)
    with unchanged(model), pytest.raises(error):
        score(model, inputs(), engine=engine, batch_size=1, check=False)  # for want of memory, larger batches are halved
    assert calls == 5


@pytest.mark.parametrize("engine", ENGINES)
def test_after_a_pool_that_fails_halfway(engine):
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, i):
            if i == 7:
                raise OSError("file 7 is gone")
            return inputs()[i]

    model = build()
    with unchanged(model), pytest.raises(OSError, match="file 7 is gone"):
        score(model, Broken(), engine=engine, batch_size=2)


def test_after_non_finite_scores_and_an_engine_that_cannot():
    model, x = build(), inputs()
    x[6, 1] = torch.nan
    with unchanged(model), pytest.raises(NonFiniteError):
        score(model, x)
    model = build(lambda x: x.detach().data_ptr())
    for engine in ("ghost", "vmap"):
        with unchanged(model), pytest.raises(EngineError):
            score(model, x, engine=engine)


def test_a_fallback_leaves_no_traces():
    model = build(lambda x: x.detach().data_ptr())
    with unchanged(model):
        fallen = score(model, inputs(), details=True)
    assert fallen.engine == "reference"
    torch.testing.assert_close(fallen.perturbed_loss, score(build(), inputs(), engine="reference"), **FP64)


@pytest.mark.parametrize("engine", ENGINES)
def test_scoring_is_done_in_eval_mode(engine):
    modes = []
    model = build(lambda x: modes.append([m.training for m in model.modules()]))
    x = inputs()
    first, second = (score(model, x, engine=engine) for _ in range(2))
    assert torch.equal(first, second)  # no dropout
    assert not any(flag for flags in modes for flag in flags)
    alone = torch.cat([score(model, x[i : i + 1], engine=engine) for i in range(len(x))])
    torch.testing.assert_close(first, alone, **FP64)  # no statistics of the batch
    torch.testing.assert_close(first, score(build().eval(), x, engine=engine), **FP64)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_in_every_mode_of_autograd(engine, mode):
    model, twin, x = build(), build().eval(), inputs()
    truth = score(model, x, engine=engine)
    with mode():
        labels = twin(x).argmax(1)
        with unchanged(model):
            enabled = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            scores = score(model, x.clone(), engine=engine)  # a pool that is born in the mode, and its labels
            labelled = score(model, x.clone(), labels=labels, engine=engine)
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == enabled
    assert not scores.requires_grad
    torch.testing.assert_close(scores, truth, **FP64)
    torch.testing.assert_close(labelled, truth, **FP64)


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_a_model_that_draws_torchs_random_numbers_in_eval_mode(engine):
    model = build(lambda x: torch.rand(3))
    with unchanged(model):
        first, second = (score(model, inputs(), engine=engine) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_that_changes_its_input_in_place(engine):
    def build_one(first):
        torch.manual_seed(0)
        return nn.Sequential(first, nn.Linear(4, 3)).double()

    x = inputs()
    before = x.clone()
    scores = score(build_one(nn.ReLU(inplace=True)), x, engine=engine)
    assert torch.equal(x, before)
    torch.testing.assert_close(scores, score(build_one(nn.ReLU()), x, engine=engine), **FP64)


def test_a_model_that_changes_its_own_parameters_is_reported():
    words = nn.Sequential(nn.Embedding(5, 3, max_norm=0.1), nn.Flatten(), nn.Linear(6, 3))
    with pytest.raises(RuntimeError, match=r"changed its own parameters in place while it was scored \(0.weight\)"):
        score(words, torch.randint(5, (4, 2)), engine="reference")


def test_a_training_loop_goes_on_as_if_nothing_had_been():
    def train(scoring):
        model = build()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        torch.manual_seed(3)
        for _ in range(3):
            optimizer.zero_grad()
            model(inputs()).logsumexp(1).sum().backward()
            if scoring:
                select(model, inputs(), 2)  # between backward and step
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(train(scoring=True), train(scoring=False))


@pytest.mark.parametrize("engine", ["reference", "vmap", "ghost"])
def test_a_model_made_in_inference_mode(engine):
    with torch.inference_mode():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        pool = torch.randn(5, 4)
    torch.manual_seed(0)
    same = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    expected = score(same, pool, engine="reference")
    torch.testing.assert_close(score(model, pool, engine=engine), expected)
