"""What a call has found of a model object serves the next one, and nothing that may have changed since."""

from itertools import count

import pytest
import torch
from models import Function
from torch import nn

import saal_fast

POOL = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def build(forward, **parts):
    torch.manual_seed(0)
    parts = {"body": nn.Linear(6, 6), "head": nn.Linear(6, 4)} | parts
    return Function(forward, **parts).double().eval()


def agrees(model, pool=POOL, **options):
    fast, plain = (
        saal_fast.score(model, pool, 0.3, engine=engine, details=True, check=False, **options)
        for engine in ("ghost", "reference")
    )
    for field in ("perturbed_loss", "loss", "grad_norm"):
        torch.testing.assert_close(getattr(fast, field), getattr(plain, field), rtol=1e-9, atol=1e-12)


def passes(model, calls, **options):
    before = next(calls)
    saal_fast.score(model, POOL, check=False, **options)
    return next(calls) - before - 1


def test_a_further_call_has_one_pass_of_set_up():
    calls = count()

    def forward(self, x):
        next(calls)
        return self.head(self.body(x).tanh())

    model = build(forward)
    assert passes(model, calls, batch_size=8) - 2 == 3  # the first look, a plain one and the plan; two passes of the batch
    assert passes(model, calls, batch_size=8) - 2 == 1
    with torch.no_grad():
        model.head.weight.mul_(2)
    assert passes(model, calls, batch_size=8) - 2 == 1
    assert passes(model, calls) - 2 == 1  # the size of the batch is known as well
    agrees(model)


@pytest.mark.parametrize("setting", ["attribute", "dict", "configuration", "list in an object"])
def test_a_setting_that_changes_which_weights_are_used(setting):
    class Configuration:
        def __init__(self):
            self.tied, self.more = False, [False]

    def tied(self):
        return self.tied or self.settings["tied"] or self.configuration.tied or self.configuration.more[0]

    def forward(self, x):
        h = self.body(x).tanh()
        return self.head(h) + (h @ self.head.weight.T.sin() if tied(self) else 0)

    model = build(forward)
    model.tied, model.settings, model.configuration = False, {"tied": False}, Configuration()
    agrees(model)
    if setting == "attribute":
        model.tied = True
    elif setting == "dict":
        model.settings["tied"] = True
    elif setting == "configuration":
        model.configuration.tied = True
    else:
        model.configuration.more[0] = True
    agrees(model)


def hook(module, args, out):
    return out * 2


def tie(model):
    model.head.weight = model.body.weight
    model.head.bias = model.body.bias


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.head.register_forward_hook(hook),
        lambda model: model.body.requires_grad_(False),
        lambda model: setattr(model, "head", nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 4)).double()),
        lambda model: setattr(model.head, "weight", nn.Parameter(torch.randn(4, 6, dtype=torch.float64))),
        lambda model: model.load_state_dict({n: t * 2 for n, t in model.state_dict().items()}),
        lambda model: setattr(model, "_forward", lambda self, x: self.head(self.body(self.body(x)).relu())),
        lambda model: model.double().float().double(),
        tie,
    ],
)
def test_a_model_that_has_changed(change):
    model = build(lambda self, x: self.head(self.body(x).tanh()), head=nn.Linear(6, 6) if change is tie else nn.Linear(6, 4))
    agrees(model)
    change(model)
    agrees(model)


def test_labels_are_checked_in_every_call():
    model = build(lambda self, x: self.head(self.body(x).tanh()))
    labels = torch.arange(8) % 4
    agrees(model, labels=labels)
    with pytest.raises(ValueError, match="label"):
        saal_fast.score(model, POOL, labels=labels + 1, check=False)


def test_inputs_of_another_size():
    model = build(lambda self, x: self.head(self.body(x).tanh().mean(1)))
    for length in (3, 5, 3):
        agrees(model, torch.randn(4, length, 6, dtype=torch.float64))
