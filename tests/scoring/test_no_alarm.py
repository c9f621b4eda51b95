"""The self-check leaves alone what is right."""

import copy
import logging

import models
import pytest
import torch
import torch.nn.functional as F
from alarms import RULES, checked, inputs, mlp
from torch import nn

from saal_fast import score
from saal_fast.engines import ENGINES

pytestmark = pytest.mark.usefixtures("each_warning_anew")


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in models.SPELLINGS else n for n in models.NAMES]
)
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
