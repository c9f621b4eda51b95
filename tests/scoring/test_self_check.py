"""The self-check: what it must see, and what it must leave alone."""

import copy
import gc
import logging
import math
import random
import re
import signal
import threading
from dataclasses import replace
from functools import partial

import models
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import saal_fast
from saal_fast import SelfCheckError, score
from saal_fast._utils.logs import forget_warnings
from saal_fast.engines import ENGINES
from saal_fast.engines.habits import NO_HABITS
from saal_fast.engines.layers.linear import Linear
from saal_fast.models import memory
from saal_fast.scoring import ScoreOptions, score_pool
from saal_fast.scoring.comparison import Comparison
from saal_fast.scoring.known import _models
from saal_fast.scoring.runner import Runner

RULES = {
    "L2": {"rho": 0.3},
    "L1.5": {"rho": 0.3, "norm": 1.5},
    "Linf": {"rho": 0.01, "norm": math.inf},
    "adaptive": {"rho": 0.2, "adaptive": True},
    "none": {"rho": 0.0},
    "huge": {"rho": 1e3},
}


@pytest.fixture(autouse=True)
def each_warning_anew():
    forget_warnings()


def inputs(n=8, width=5, seed=1):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def mlp(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), *middle, nn.Linear(6, 4))


def checked(model, pool=None, **options):
    return score(model, inputs() if pool is None else pool, details=True, **options).checked


# --- models that are right ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("name", models.NAMES)
def test_no_alarm(name, dtype, caplog):
    case = models.build(name, dtype)
    assert checked(case.model, case.pool, params=case.params, **RULES["L2"]).startswith("agreed on sample")
    assert not [r for r in caplog.records if "no gradient reached" not in r.getMessage()]


@pytest.mark.slow
@pytest.mark.parametrize("rule", sorted(set(RULES) - {"L2"}))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", models.NAMES)
def test_no_alarm_by_other_rules(name, dtype, rule):
    case = models.build(name, dtype)
    options = RULES[rule] | {"params": case.params, "on_nonfinite": "keep"}
    assert checked(case.model, case.pool, **options).startswith(("agreed on sample", "left out: no sample"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rule", RULES)
def test_no_alarm_by_any_engine(engine, rule):
    assert checked(mlp(), engine=engine, **RULES[rule]).startswith("agreed on samples 0, ")
    assert checked(mlp(), engine=engine, labels=[0, 1, 2, 3] * 2, **RULES[rule]).startswith("agreed on samples 0, ")


@pytest.mark.parametrize(
    "options", [{"precision": "bf16"}, {"embeddings": True}, {"params": "0.bias".__eq__}, {"batch_size": 1}]
)
def test_no_alarm_under_options(options):
    assert checked(mlp(), **options).startswith("agreed on sample")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_no_alarm_by_half_models(dtype):
    assert checked(mlp().to(dtype), inputs().to(dtype)).startswith("agreed on sample")


@pytest.mark.parametrize("rule", RULES)
def test_no_alarm_by_saturated_samples(rule):
    model = mlp()
    with torch.no_grad():
        model[-1].weight.mul_(300)
    scores = score(model, inputs(), details=True, **RULES[rule])
    assert scores.loss.min() < 1e-12
    assert scores.checked.startswith("agreed")


@pytest.mark.parametrize("rule", RULES)
def test_no_alarm_by_ties(rule):
    """Equal logits, ReLUs at exactly 0 and equal maxima in a pooling: each way may take another side."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 16, 4)
    )
    for pool in (torch.zeros(4, 1, 8, 8), torch.ones(4, 1, 8, 8), torch.randn(4, 1, 8, 8).round()):
        assert checked(model, pool, **RULES[rule]).startswith("agreed")
    nn.init.zeros_(model[-1].weight)
    nn.init.zeros_(model[-1].bias)
    assert checked(copy.deepcopy(model), torch.ones(4, 1, 8, 8), **RULES[rule]).startswith("agreed")


def test_samples_that_are_not_finite_are_passed_over():
    x = inputs()
    x[0, 0] = torch.nan
    assert checked(mlp(), x, on_nonfinite="keep").startswith("agreed on samples 1, ")
    assert checked(mlp(), x[:1], on_nonfinite="keep") == "left out: no sample of the first batch has finite numbers"


def test_a_task_with_labels_of_its_own():
    class Boxes:
        def pseudo_label(self, output):
            return {"box": output.reshape(-1, 2, 2).argmax(-1)}

        def loss(self, output, label):
            return F.cross_entropy(output.reshape(-1, 2, 2).mT, label["box"], reduction="none").sum(1)

    assert checked(mlp(), task=Boxes()).startswith("agreed")


class OneByOne(nn.Module):
    """Takes no batch of two; or gives other outputs in one."""

    def __init__(self, refuses):
        super().__init__()
        self.body, self.refuses = mlp(), refuses

    def forward(self, x):
        if self.refuses:
            return self.body(x.view(5)).view(1, 4)
        return self.body(x / x.norm())


@pytest.mark.parametrize("refuses", [True, False])
def test_models_that_take_one_sample_at_a_time(refuses):
    assert checked(OneByOne(refuses)).startswith("agreed")


# --- models that engines get wrong ----------------------------------------------------------------


class Past(nn.Module):
    """Reaches a weight through a closure."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.head = nn.Parameter(torch.randn(6, 5)), nn.Linear(6, 4)
        weight = self.weight
        self.again = lambda x: x @ weight.T

    def forward(self, x):
        return self.head((x @ self.weight.T).tanh() * self.again(x).sigmoid())


class Wrong:
    """An engine whose numbers are off by a factor, of some samples of a batch."""

    def __init__(self, problem, quantity="grad_norm", factor=1.1, least=1):
        self.inner, self.quantity, self.factor, self.least = ENGINES["ghost"](problem), quantity, factor, least

    def __call__(self, batch):
        result = self.inner(batch)
        if batch.size < self.least:
            return result
        return result._replace(**{self.quantity: getattr(result, self.quantity) * self.factor})

    def sample_bytes(self, example):
        return self.inner.sample_bytes(example)


def by(engine, model=None, **options):
    engines = ENGINES | {"ghost": engine}
    runner = partial(Runner, engines=engines, capture=lambda engine, device: engine)
    return score_pool(mlp() if model is None else model, inputs(), ScoreOptions.of(0.05, options), runner)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("quantity", ["loss", "grad_norm", "perturbed_loss"])
def test_a_wrong_engine(quantity, rows):
    with pytest.raises(
        SelfCheckError, match=r"expected sample 0 of the pool .*usual causes: .*check=False does not look"
    ) as e:
        by(partial(Wrong, quantity=quantity, least=rows))
    assert isinstance(e.value, RuntimeError)
    right = getattr(score(mlp(), inputs(), engine="reference", details=True), quantity)[0].item()
    assert f"{quantity} {1.1 * right:.6f}"[:-2] in str(e.value)
    assert f"and {right:.6f}"[:-2] in str(e.value)


def test_an_engine_that_does_not_step():
    class Still(Wrong):
        def __call__(self, batch):
            result = self.inner(batch)
            return result._replace(perturbed_loss=result.loss)

    with pytest.raises(SelfCheckError, match="perturbed_loss"):
        by(Still)


def test_warn_goes_on_and_says_it_once(caplog):
    model = mlp()
    for _ in range(2):
        assert by(Wrong, model, check="warn").checked.startswith("differed: expected sample 0")
    assert len(caplog.records) == 1


def test_what_warn_has_let_pass_is_raised_later():
    model = mlp()
    assert by(Wrong, model, check="warn").checked.startswith("differed")
    with pytest.raises(SelfCheckError):
        by(Wrong, model)
    assert by(Wrong, model, check=False).checked is None


def test_false_does_not_look(caplog):
    assert by(Wrong, check=False).checked is None
    assert not caplog.records


def test_what_is_no_choice():
    for bad in (None, True, "no", 1):
        with pytest.raises(ValueError, match="expected check to be one of 'raise', 'warn', False; got"):
            score(mlp(), inputs(), check=bad)


def careless(problem):
    """An engine that takes no notice of what a model does beside reading its registered parameters."""
    return ENGINES["reference"](replace(problem, habits=NO_HABITS))


def test_a_weight_reached_through_a_closure():
    with pytest.raises(SelfCheckError, match="Gradients come to weight past the module's attributes"):
        by(careless, Past())
    assert by(careless, Past(), check=False).perturbed_loss.isfinite().all()
    assert score(Past(), inputs(), details=True).checked.startswith("agreed")


class Kept(nn.Module):
    """Keeps what it computes from its biases in eval mode, as attention biases of vision transformers are kept."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.biases, self.how = mlp(), nn.Parameter(torch.randn(3)), how
        self.cache, self.kept = {}, None

    def train(self, mode=True):
        super().train(mode)
        if self.how == "modes":
            self.kept = None if mode else self.biases[[0, 1, 2, 0]]
        return self

    def made(self):
        return self.biases[[0, 1, 2, 0]]

    def forward(self, x):
        if self.training:
            return self.body(x) * self.made()
        if self.how == "dict" and "all" not in self.cache:
            self.cache["all"] = self.made()
        if self.how == "attribute" and self.kept is None:
            self.kept = self.made()
        if self.how == "absent" and not hasattr(self, "late"):
            self.late = self.made()
        return self.body(x) * (self.cache["all"] if self.how == "dict" else self.late if self.how == "absent" else self.kept)


@pytest.mark.parametrize("how", ["dict", "attribute", "absent", "modes"])
def test_values_kept_from_an_earlier_pass(how):
    """The engine here takes what is kept as it stands, so that the biases are constants."""
    model = Kept(how).eval()
    with torch.no_grad():
        model(inputs())
    value = model.made().detach()

    class Constant(Wrong):
        def __init__(self, problem):
            self.inner = careless(problem)
            problem.model.forward = lambda x: problem.model.body(x) * value.to(x.dtype)

    with pytest.raises(SelfCheckError, match="kept from an earlier pass"):
        by(lambda problem: Constant(problem).inner, model)


class Asks(nn.Module):
    """Another function where no gradient is taken."""

    def __init__(self):
        super().__init__()
        self.body = mlp()

    def forward(self, x):
        return self.body(x) if torch.is_grad_enabled() else 2 * self.body(x)


def test_numbers_of_two_functions():
    """An engine takes the perturbed loss without gradients, and so of another function."""

    class Plain(Wrong):
        def __call__(self, batch):
            result = self.inner(batch)
            return result._replace(perturbed_loss=result.perturbed_loss * 2)

    with pytest.raises(SelfCheckError, match="is_grad_enabled"):
        by(Plain)


GENERATOR = np.random.default_rng(0)


class FromAGlobal(nn.Module):
    def forward(self, x):
        return x * GENERATOR.random()


class CountsInItsClass(nn.Module):
    passes = [0]  # noqa: RUF012 - the state that is meant

    def forward(self, x):
        self.passes[0] += 1
        return x * (1 + (0.618 * self.passes[0]) % 1)


@pytest.mark.parametrize("layer", [FromAGlobal, CountsInItsClass])
@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_two_passes_that_nothing_can_make_the_same(layer, engine):
    CountsInItsClass.passes[0] = 0
    with pytest.raises(SelfCheckError, match=r"both passes over sample 0 .*not in its modules' attributes"):
        score(mlp(layer()), inputs(), engine=engine)
    warned = score(mlp(layer()), inputs(), engine=engine, check="warn", details=True)
    assert warned.checked.startswith("differed: expected both passes")


class BothWays(nn.Module):
    """Uses its biases as they are, and by what it has kept of them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.biases, self.cache = mlp(), nn.Parameter(torch.randn(4)), {}

    def forward(self, x):
        if "all" not in self.cache:
            self.cache["all"] = 0.2 * self.biases
        return self.body(x) + self.biases + self.cache["all"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_difference_of_a_few_percent_that_is_no_rounding(dtype):
    model = BothWays().to(dtype).eval()
    with torch.no_grad():
        model(inputs().to(dtype))
    with pytest.raises(SelfCheckError, match="what it keeps was taken"):
        score(model, inputs().to(dtype))


class Scaled(nn.Module):
    """A layer whose weight carries a number, as those of muP do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))
        self.weight.multiplier = 2.0

    def forward(self, x):
        return x * self.weight * getattr(self.weight, "multiplier", 1.0)


def test_attributes_of_parameters():
    with pytest.raises(SelfCheckError, match="attributes of Parameter objects"):
        score(mlp(Scaled()), inputs())


# --- what the check can't decide ------------------------------------------------------------------


class OwnCopy(nn.Linear):
    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize("make", [lambda: OwnCopy(5, 4), lambda: mlp(OwnCopy(6, 6))], ids=["whole", "part"])
def test_a_copy_that_shares_the_models_weights_is_not_moved(make):
    model = make()
    before = [p.detach().clone() for p in model.parameters()]
    assert re.match("left out: SharedError: a copy of .* shares .*weight with it", checked(model))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


def test_models_that_draw_are_left_out(caplog):
    model = mlp(Noisy())
    scores = score(model, inputs(), details=True)
    assert scores.checked.startswith("left out: two passes of it differ (it draws random numbers")
    assert "the self-check of Sequential was left out" in caplog.text


def test_draws_are_those_without_a_check():
    class Draws(nn.Module):
        def forward(self, x):
            self.drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))
            return x

    def drawn(**options):
        layer = Draws()
        object.__setattr__(layer, "drawn", kept)
        kept.clear()
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        score(mlp(layer), inputs(), batch_size=2, engine="reference", **options)
        return list(kept)

    kept = Uncopied()
    without, with_check = drawn(check=False), drawn()
    assert set(without) <= set(with_check)
    assert [x for x in with_check if x in set(without)][-4:] == without[-4:]


class Uncopied(list):
    """A list that its copies share."""

    def __deepcopy__(self, memo):
        return self


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, x):
        return x


class Unique(Locked):
    def __deepcopy__(self, memo):
        raise TypeError("there is but one")


def test_models_that_cannot_be_copied_are_left_out(caplog):
    assert checked(mlp(Unique())) == "left out: TypeError: there is but one"
    assert "the self-check of Sequential was left out: TypeError: there is but one" in caplog.text


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_attributes_that_cannot_be_copied_are_shared(caplog):
    model = mlp(Locked())
    model[2].traced = torch.jit.trace(lambda x: 2 * x, torch.randn(2, 6))
    assert checked(model).startswith("agreed")
    assert not caplog.records


class Twice(nn.Module):
    """Uses a weight by its name, and once more by a list."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encode, self.head = nn.Linear(5, 6), nn.Linear(6, 4)
        self.tied = [self.encode.weight]

    def forward(self, x):
        return self.head((x @ self.tied[0].T).tanh() * self.encode(x).sigmoid())


def test_numbers_of_a_tied_weight_are_those_of_both_uses():
    """What an engine that takes the second use for a constant finds is refused."""

    class Once(Wrong):
        def __init__(self, problem):
            weight = problem.model.encode.weight.detach()
            problem.model.tied[0] = weight
            super().__init__(problem, factor=1.0)

    with pytest.raises(SelfCheckError, match="weights reached past the module's attributes"):
        by(Once, Twice())


def test_two_samples_are_checked_where_there_are_two(looks):
    for n in (1, 2, 5):
        looks.clear()
        checked(mlp(), inputs(n))
        assert len(looks) == min(n, 2)


def test_a_model_that_writes_to_its_parameters_is_told_as_such():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 8, max_norm=1.0), nn.Flatten(), nn.Linear(24, 4))
    with pytest.raises(RuntimeError, match=r"0\.weight") as error:
        score(model, torch.arange(12).reshape(4, 3))
    assert not isinstance(error.value, SelfCheckError)


def test_copies_that_memory_does_not_hold_are_left_out(monkeypatch, caplog):
    monkeypatch.setattr(memory, "free", lambda device: 100)
    assert checked(mlp()).startswith("left out: copies of the model and their gradients take 2,048 bytes, of which 100 are")
    assert "was left out" in caplog.text


def test_a_model_that_fails_on_the_second_way_is_left_out():
    class Counting(nn.Module):
        def forward(self, x):
            if (
                torch.is_grad_enabled()
                and not self.training
                and len(x) == 2
                and not torch._C._functorch.maybe_current_level()
            ):
                raise RuntimeError("mine")
            return x

    assert checked(mlp(Counting())).startswith("agreed")  # by batches of one

    class Never(nn.Module):
        def __deepcopy__(self, memo):
            return Failing()

        def forward(self, x):
            return x

    class Failing(nn.Module):
        def forward(self, x):
            raise KeyError("gone")

    assert checked(mlp(Never())).startswith("left out: KeyError: 'gone'")


def test_an_alarm_by_a_signal_is_raised_as_it_came():
    class StopError(Exception):
        pass

    def stop(number, frame):
        raise StopError

    class Rings(nn.Module):
        def __deepcopy__(self, memo):
            signal.raise_signal(signal.SIGUSR1)
            return self

        def forward(self, x):
            return x

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(StopError):
            score(mlp(Rings()), inputs())
    finally:
        signal.signal(signal.SIGUSR1, before)


class Fixed(nn.Module):
    """Runs in float32 alone, where it rounds so much that numbers differ."""

    def forward(self, x):
        if x.dtype == torch.float64:
            raise RuntimeError("float32 only")
        return x


def test_a_model_that_does_not_run_in_float64():
    assert checked(mlp(Fixed())).startswith("agreed")
    with pytest.raises(SelfCheckError, match=r"\(in torch.float32; the model does not run in float64\)"):
        by(Wrong, mlp(Fixed()))


# --- once a model ---------------------------------------------------------------------------------


@pytest.fixture
def looks(monkeypatch):
    """Counts the samples that are scored a second way."""
    seen = []
    inner = Comparison.check
    monkeypatch.setattr(Comparison, "check", lambda self, *given: (seen.append(1), inner(self, *given))[1])
    return seen


def test_a_loop_pays_once(looks):
    model = mlp()
    first = checked(model)
    paid = len(looks)
    assert 1 <= paid <= 2
    for _ in range(3):
        with torch.no_grad():
            model[0].weight += 0.1  # a round of training
        assert checked(model, inputs(seed=3)) == first
        saal_fast.select(model, inputs(), 2)
    assert len(looks) == paid


@pytest.mark.parametrize(
    "change",
    [
        lambda m: {"norm": 3},
        lambda m: {"adaptive": True},
        lambda m: {"engine": "vmap"},
        lambda m: {"labels": [0] * 8},
        lambda m: {"params": "0.weight".__eq__},
        lambda m: {"embeddings": True},
        lambda m: m[0].bias.requires_grad_(False) is None or {},
        lambda m: m.insert(1, nn.ReLU()) is None or {},
        lambda m: m[0].register_forward_hook(lambda *_: None) is None or {},
    ],
)
def test_other_options_or_another_structure_are_checked_anew(looks, change):
    model = mlp()
    checked(model)
    paid = len(looks)
    options = change(model)
    options = options if isinstance(options, dict) else {}
    assert checked(model, **options).startswith("agreed")
    assert len(looks) > paid


def test_verdicts_go_with_their_model():
    model = mlp()
    checked(model)
    number = id(model)
    assert number in _models
    del model
    gc.collect()
    assert number not in _models


def test_an_alarm_is_raised_each_time():
    model = mlp()
    for _ in range(2):
        with pytest.raises(SelfCheckError):
            by(Wrong, model)


# --- parameters without a gradient ----------------------------------------------------------------


def test_parameters_that_no_gradient_reaches_are_named_once(caplog):
    model = models.Function(lambda self, x: self.used(x), used=nn.Linear(5, 4), rest=nn.Linear(5, 3))
    for _ in range(2):
        checked(model)
    told = [r.getMessage() for r in caplog.records]
    assert told == [
        "no gradient reached 2 of 4 parameters of Function for the samples checked, so that these are not perturbed there: "
        "rest.weight, rest.bias"
    ]


def test_a_user_model_is_not_touched():
    model = mlp().train()
    model(inputs()).sum().backward()
    before = {n: (p.data_ptr(), p._version, p.detach().clone(), p.grad, p.grad.clone()) for n, p in model.named_parameters()}
    checked(model)
    for n, p in model.named_parameters():
        address, version, value, grad, kept = before[n]
        assert (p.data_ptr(), p._version) == (address, version)
        assert p.grad is grad
        assert torch.equal(p, value)
        assert torch.equal(grad, kept)
    assert all(m.training for m in model.modules())


def test_the_logger_says_nothing_where_all_is_well(caplog):
    caplog.set_level(logging.INFO, "saal_fast")
    checked(mlp())
    assert not caplog.records


def test_a_layer_registered_with_wrong_factors(monkeypatch):
    """A linear layer whose gradient is said to be half as long again."""
    original = Linear.ghost_norm
    monkeypatch.setattr(Linear, "ghost_norm", lambda self, *given: 2.25 * original(self, *given))
    models.factor_everything(monkeypatch)
    with pytest.raises(SelfCheckError, match="a wrong registered layer"):
        score(mlp(), inputs(), engine="ghost")
