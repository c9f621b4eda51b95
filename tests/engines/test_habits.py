"""Models with habits (parameters reached past attributes, things kept), held to finite differences."""

import copy
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from habitual import AUTOGRAD, BY_REFERENCE, BY_TWO_RULES, ENGINES, MODELS, Appends, Base, Counts, MovingAverage, make, pool
from torch import nn
from truth import assert_true, truth_of

import saal_fast

TRUE = [
    pytest.param(
        name,
        rule,
        engines,
        marks=()
        if engines == ("auto",) and (not rule or ("adaptive" in rule and name in BY_TWO_RULES))
        else pytest.mark.slow,
    )
    for rule in ({}, {"norm": 3.0}, {"adaptive": True})
    for name in MODELS
    for engines in (("auto",), ("ghost", "vmap", "reference"))
]


@pytest.mark.parametrize(("name", "rule", "engines"), TRUE, ids=str)
def test_all_engines_give_the_true_scores(name, rule, engines):
    if name == "AsksForGradMode":
        expected = truth_of(lambda: _graded(name), pool(), **rule, forward=_with_grad)
    else:
        expected = truth_of(lambda: make(name), pool(), **rule, differences=name not in AUTOGRAD)
    for engine in engines:
        model = make(name).eval()
        before = copy.deepcopy(model.state_dict())
        try:
            scores = saal_fast.score(model, pool(), details=True, engine=engine, batch_size=2, **rule)
        except saal_fast.EngineError:
            assert engine in ("ghost", "vmap"), name
            assert name in BY_REFERENCE or name in ("Copied", "ParameterOfAParameter", "AsSubclass", "Checkpointed")
            continue
        assert_true(scores, expected)
        assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def _graded(name):
    return make(name)


def _with_grad(model, x):
    with torch.enable_grad():
        return model(x).detach()


@pytest.mark.parametrize(
    "name", ["CacheByDevice", "CacheWithoutAsking", "KeptAttribute", "MadeByEval", "BufferMadeByEval", "InAChild"]
)
@pytest.mark.parametrize("graded", [False, True])
def test_what_was_kept_before_scoring(name, graded):
    """The user's own eval pass has filled the caches, with or without a graph."""
    chosen = {"params": lambda n: "biases" in n}
    expected = truth_of(lambda: make(name), pool(), **chosen)
    assert (expected.grad_norm > 1e-3).all()
    for engine in ENGINES:
        model = make(name).eval()
        with torch.set_grad_enabled(graded):
            model(pool())
        attributes = dict(vars(model))
        scores = saal_fast.score(model, pool(), details=True, engine=engine, **chosen)
        assert_true(scores, expected)
        assert all(vars(model)[k] is v for k, v in attributes.items())


@pytest.mark.parametrize("name", ["PartlyKept", "PartlyInADict", "PartlyAProperty"])
def test_what_a_pass_with_gradients_has_kept_before_scoring(name):
    expected = truth_of(lambda: make(name), pool())
    for engine in ENGINES:
        model = make(name).eval()
        model(pool())
        attributes = dict(vars(model))
        assert_true(saal_fast.score(model, pool(), details=True, engine=engine), expected)
        assert all(vars(model)[k] is v for k, v in attributes.items())


@pytest.mark.parametrize("name", ["PartlyKept", "PartlyInADict", "PartlyAProperty", "PartlyABuffer"])
@pytest.mark.parametrize("graded", [False, True])
def test_what_is_kept_of_a_weight_that_is_used_itself_too_is_refused_or_right(name, graded):
    model = make(name).eval()
    with torch.set_grad_enabled(graded):
        model(pool())
    if graded and name != "PartlyABuffer":
        assert saal_fast.score(model, pool(), details=True).checked.startswith("agreed")
    else:
        with pytest.raises(saal_fast.SelfCheckError, match="kept from an earlier pass"):
            saal_fast.score(model, pool())


def kept_by_cache(model):
    model.twice = functools.cache(lambda: model.enc.weight * 2)


def kept_in_a_closure(model):
    kept = {}

    def twice():
        if "w" not in kept:
            kept["w"] = model.enc.weight * 2
        return kept["w"]

    model.twice = twice


class Caching(Base):
    """Has a function that keeps what it gives, in a place that no module has."""

    def __init__(self, how):
        super().__init__()
        how(self)

    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.twice())


class ByMethod(Base):
    @functools.cache  # noqa: B019 - what is meant
    def twice(self):
        return self.enc.weight * 2

    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.twice())


class Done(Base):
    done = False

    def forward(self, x):
        if not self.done:
            self.twice, self.done = self.enc.weight * 2, True
        return self.head(self.enc(x).tanh() @ self.twice)


CACHING = {
    "cache": lambda: Caching(kept_by_cache),
    "closure": lambda: Caching(kept_in_a_closure),
    "method": ByMethod,
    "flag": Done,
}


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("how", CACHING)
def test_what_is_kept_where_nothing_can_empty_it_is_an_error(how, engine):
    model = CACHING[how]().double().eval()
    if how == "flag":
        model(pool())  # what it keeps within scoring is put back before each pass
    for _ in range(2):
        with pytest.raises(saal_fast.EngineError, match=r"keeps what an earlier pass has computed from enc.weight"):
            saal_fast.score(model, pool(), engine=engine)


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_objects_that_modules_hold_come_back(engine):
    for name in ("CountsInAnObject", "KeepsInAnObject", "AppendsInAnObject"):
        model = make(name)
        saal_fast.score(model, pool(), engine=engine)
        saal_fast.explain(model, pool())
        assert (model.counter.passes, model.counter.kept, model.counter.past) == (0, {}, [])


class Late(Base):
    """Changes what it keeps from a sample on that is not the first."""

    def __init__(self, how):
        torch.manual_seed(0)
        super().__init__()
        self.how, self.passes, self.cache, self.past = how, 0, {}, []
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        y, late = self.enc(x).tanh(), bool((x[:, 0] > 0).any())
        if self.how == "buffer":
            self.seen += int(late)
            return self.head(y * (1 + self.seen))
        if self.how == "assigned" and late:
            self.seen = self.seen + y.mean()
            return self.head(y * self.seen)
        if self.how == "count" and late:
            self.passes += 1
        if self.how == "list" and late:
            self.past.append(y)
            y = sum(self.past)
        if self.how == "cache":
            y = y @ self.cache.setdefault(late, self.enc.weight * (2 + late))
        return self.head(y * (1 + self.passes))


@pytest.mark.parametrize("engine", ["auto", pytest.param("reference", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "how", ["buffer", "list", *(pytest.param(h, marks=pytest.mark.slow) for h in ("assigned", "count", "cache"))]
)
def test_what_only_later_samples_change_is_put_back_too(how, engine):
    x = pool(8)
    x[:, 0] = torch.tensor([-1.0, -1, -1, 1, -1, 1, -1, -1])
    model = Late(how).double()
    attributes = dict(vars(model))
    together = saal_fast.score(model, x, details=True, engine=engine, batch_size=2)
    assert vars(model) == attributes
    assert (model.seen.item(), model.passes, model.cache, model.past) == (0, 0, {}, [])
    truth = truth_of(lambda: Late(how).double(), x)
    assert_true(together, truth)
    for turn in (1, 3):  # known by now; where the first sample changes nothing, and where it does
        turned = saal_fast.score(model, x.roll(-turn, 0), engine=engine, batch_size=3).roll(turn)
        torch.testing.assert_close(turned, together.perturbed_loss)


class AsksForAGraph(Base):
    def forward(self, x):
        y = self.enc(x)
        return self.head(y.tanh() * (2 if y.requires_grad else 1))


def test_code_that_asks_whether_a_graph_is_recorded_is_refused_or_right():
    def made():
        torch.manual_seed(0)
        return AsksForAGraph().double()

    with pytest.raises(saal_fast.SelfCheckError):
        saal_fast.score(made(), pool(), engine="ghost")
    right = saal_fast.score(made(), pool(), details=True, engine="reference")
    assert_true(right, truth_of(made, pool(), forward=_with_grad))


class Observed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.enc, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self.quantize = torch.ao.quantization.FakeQuantize(
            observer=torch.ao.quantization.MovingAverageMinMaxObserver, quant_min=0, quant_max=255
        )
        self(torch.randn(8, 4))

    def forward(self, x):
        return self.head(self.quantize(self.enc(x).tanh()))


class InArray(Base):
    """Counts its passes in an array of NumPy, and in a tensor that a list in a tuple holds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.passes, self.held = np.ones(1), (["passes", torch.ones(())],)

    def forward(self, x):
        self.passes += 1
        self.held[0][1].data.mul_(2)
        return self.head(self.enc(x).tanh()) * (self.passes[0] + self.held[0][1].item())


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("kind", [Observed, Counts, MovingAverage, Appends, InArray], ids=lambda k: k.__name__)
def test_scores_do_not_depend_on_the_pools_order(kind, engine, caplog):
    x = torch.randn(6, 4)
    model = kind()
    forwards = saal_fast.score(model, x, engine=engine, batch_size=2)
    backwards = saal_fast.score(model, x.flip(0), engine=engine, batch_size=2).flip(0)
    alone = torch.cat([saal_fast.score(model, x[i : i + 1], engine=engine) for i in range(6)])
    torch.testing.assert_close(forwards, backwards)
    torch.testing.assert_close(forwards, alone)


def test_cached_parametrizations_follow_the_step():
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)), nn.Tanh(), nn.Linear(8, 3)),
        torch.randn(5, 4),
    )
    plain = saal_fast.score(model, x, 0.5)
    with nn.utils.parametrize.cached():
        model(x)
        torch.testing.assert_close(saal_fast.score(model, x, 0.5), plain)


class Transforms(Base):
    """Uses function transforms in its forward pass."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        if self.how == "vmap":
            return self.head(torch.func.vmap(lambda row: F.linear(row, self.enc.weight))(x).tanh())
        if self.how == "jvp":
            value, slope = torch.func.jvp(self.enc, (x,), (torch.ones_like(x),))
            return self.head(value.tanh() + slope)
        return self.head(torch.func.grad(lambda v: self.enc(v).tanh().sum())(x))


@pytest.mark.parametrize("how", ["vmap", "jvp", "grad"])
def test_function_transforms_within_a_model(how):
    def make():
        torch.manual_seed(0)
        return Transforms(how).double()

    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = saal_fast.score(make(), x, details=True)
    assert_true(scores, truth_of(make, x))
    assert scores.checked.startswith("agreed")
