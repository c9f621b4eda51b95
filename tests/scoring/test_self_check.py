"""What the self-check must see."""

from dataclasses import replace
from functools import partial

import models
import numpy as np
import pytest
import torch
from alarms import Wrong, by, inputs, mlp
from torch import nn

from saal_fast import SelfCheckError, score
from saal_fast.engines import ENGINES
from saal_fast.engines.habits import NO_HABITS
from saal_fast.engines.layers.linear import Linear

pytestmark = pytest.mark.usefixtures("each_warning_anew")


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
    for bad in (None, True, "no", 0, 0.0, 1, np.False_):
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
        by(careless, mlp(Scaled()))
    scores = score(mlp(Scaled()), inputs(), details=True)  # by the reference, which moves the model's own
    assert scores.checked.startswith("agreed")
    assert "Parameter objects" in scores.fallback


def test_a_layer_registered_with_wrong_factors(monkeypatch):
    """A linear layer whose gradient is said to be half as long again."""
    original = Linear.ghost_norm
    monkeypatch.setattr(Linear, "ghost_norm", lambda self, *given: 2.25 * original(self, *given))
    models.factor_everything(monkeypatch)
    with pytest.raises(SelfCheckError, match="a wrong registered layer"):
        score(mlp(), inputs(), engine="ghost")
