"""What a model computes before any parameter to perturb is computed once; nothing else is taken from the first pass."""

from __future__ import annotations

import logging
from collections import Counter

import models
import pytest
import torch
from models import Function
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import saal_fast
from saal_fast.engines.ghost import Ghost
from saal_fast.engines.problem import Problem
from saal_fast.perturbation import L2
from saal_fast.pools import Batch
from saal_fast.tasks import Classification

TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}
FIELDS = ("perturbed_loss", "loss", "grad_norm", "label")


class CountCalls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def head(name):
    return name.startswith("head")


def agrees(model, pool, params=head, **options):
    """Scores by ghost, equal to the reference's, and the model computed twice only what it must."""
    options = {"rho": 0.3, "params": params, "details": True, "check": False} | options
    fast = saal_fast.score(model, pool, engine="ghost", **options)
    plain = saal_fast.score(model, pool, engine="reference", **options)
    for field in FIELDS:
        torch.testing.assert_close(getattr(fast, field), getattr(plain, field), **TOLERANCE)
    assert not torch.equal(fast.perturbed_loss, fast.loss)
    return fast


def build(forward, **parts):
    torch.manual_seed(0)
    parts = {
        name: make() for name, make in ({"body": lambda: nn.Linear(6, 6), "head": lambda: nn.Linear(6, 4)} | parts).items()
    }
    return Function(forward, **parts).double().eval()


def pool():
    return torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def operations(model, inputs, params):
    """What a batch calls, by ghost, once its plan is made."""
    ghost = Ghost(Problem.of(model, L2(0.3), Classification(), params))
    batch = Batch((inputs,), {}, len(inputs))
    with torch.no_grad():
        ghost(batch)
        with CountCalls() as counted:
            ghost(batch)
    return counted.calls


def network():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).double().eval()


def test_a_frozen_backbone_runs_once():
    model, images = network(), torch.randn(6, 3, 9, 9, dtype=torch.float64)
    frozen = operations(model, images, lambda name: name.startswith("3."))
    assert (frozen["convolution"], frozen["convolution_backward"]) == (2, 0)
    last = operations(model, images, lambda name: name.startswith(("3.", "0.3.")))  # from the batch norm on
    assert (last["convolution"], last["convolution_backward"]) == (2, 0)
    everything = operations(model, images, None)
    assert everything["convolution"] == 4


def suffixes(name):
    """The last weight alone, and the second half of the parameters."""
    names = [n for n, p in models.build(name).model.named_parameters() if p.requires_grad]
    return {"last": {names[-1]}, "half": set(names[len(names) // 2 :])}


HALVED = (
    "mlp",
    "resnet",
    "vit",
    "lstm",
    "bert",
    "branches",
    "conv2d_stride",
    "conv_called_twice",
    "embedding_tied_to_head",
    "linear_used_twice",
    "multihead_attention",
    "weight_norm",
)  # quickly; all others slowly
PARTS = [
    pytest.param(
        name, which, marks=() if (which == "last" and name not in models.SPELLINGS) or name in HALVED else pytest.mark.slow
    )
    for name in models.NAMES
    for which in ("last", "half")
]


@pytest.mark.parametrize(("name", "which"), PARTS)
def test_parts_of_every_model(name, which):
    case = models.build(name)
    options = {"rho": 0.3, "params": suffixes(name)[which].__contains__, "details": True, "check": False}
    fast, plain = (saal_fast.score(case.model, case.pool, engine=engine, **options) for engine in ("ghost", "reference"))
    for field in FIELDS:
        torch.testing.assert_close(getattr(fast, field), getattr(plain, field), **TOLERANCE)


def test_what_is_written_over_before_the_head():
    def forward(self, x):
        x.mul_(2)
        h = self.body(x)
        h.view(2, 3)[0] += 1
        h.relu_()
        h[:, 0] = x[:, 1]
        h.add_(x)
        return self.head(h)

    agrees(build(forward), pool())


@pytest.mark.parametrize("through", ["itself", "a view", "a chunk", "an item"])
def test_what_is_written_over_after_the_head_has_read_it(through):
    def forward(self, x):
        h = self.body(x).clone()
        scaled = h + self.head.bias.sum()  # its gradient does not need h
        {"itself": h, "a view": h.view(-1), "a chunk": h.chunk(2, 1)[0], "an item": h[:, 1]}[through].mul_(3)
        return self.head(h + scaled)

    agrees(build(forward), pool(), lambda name: name == "head.bias")


def test_a_value_taken_under_no_grad_is_taken_again():
    def forward(self, x):
        h = self.body(x)
        with torch.no_grad():
            gate = self.head.weight.square().mean()
        return self.head(h * gate)

    model = build(forward)
    options = {"rho": 0.3, "params": head, "details": True, "check": False}
    fast, plain = (saal_fast.score(model, pool(), engine=engine, **options) for engine in ("ghost", "reference"))
    torch.testing.assert_close(fast.perturbed_loss, plain.perturbed_loss, **TOLERANCE)


def test_several_outputs_questions_shapes_and_constants():
    def forward(self, x):
        h = self.body(x)
        largest, at = h.max(1)
        if bool(at[0] > 2):
            h = h * torch.linspace(0, 1, h.shape[1], dtype=h.dtype)
        spread, mean = torch.var_mean(h, dim=-1, keepdim=True, correction=0)
        parts = h.split([2, 4], 1)
        out = torch.zeros(h.shape, dtype=h.dtype, device=self.head.weight.device)
        h = torch.cat([parts[1], parts[0]], 1) - mean / spread.sqrt() + out + largest[:, None]
        return self.head(h)

    agrees(build(forward), pool())


def test_python_that_follows_a_perturbed_number(caplog):
    """The second pass then makes other calls than the first: nothing is taken from it."""

    def forward(self, x):
        with torch.no_grad():
            hot = float(self.head.bias.sum()) > float(self.was)
        h = self.body(x)
        return self.head(h.sin() if hot else h.cos())

    model = build(forward)
    model.register_buffer("was", model.head.bias.detach().sum())
    options = {"rho": 0.3, "params": lambda name: name == "head.bias", "details": True, "check": False}
    with caplog.at_level(logging.INFO, "saal_fast"):
        fast, plain = (saal_fast.score(model, pool(), engine=engine, **options) for engine in ("ghost", "reference"))
    torch.testing.assert_close(fast.perturbed_loss, plain.perturbed_loss, **TOLERANCE)


class Doubled(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g * 2


@torch.jit.script
def scripted(x):
    return x.sigmoid() * 2 + x.sum()


@pytest.mark.parametrize("unseen", [Doubled.apply, scripted])
@pytest.mark.parametrize("last", [False, True])
def test_code_that_function_modes_do_not_see(unseen, last):
    """It may use what the record has dropped, in its midst or right after it."""

    def forward(self, x):
        h = unseen(self.body(x).sin())
        return self.head(h if last else h.cos().tanh())

    agrees(build(forward), pool())


def test_a_second_head_reads_the_backbone_late():
    """Tensors that calls after the record use are kept; those that the model has dropped are not."""

    def forward(self, x):
        early = self.body(x)
        middle = early.sigmoid()
        h = (middle * 2 + early).tanh()
        first = self.head(h)
        return first + self.late(early) + self.late(middle)

    agrees(build(forward, late=lambda: nn.Linear(6, 4)), pool(), lambda name: name.startswith(("head", "late")))


def test_the_model_and_the_pool_are_left_alone():
    model, inputs = build(lambda self, x: self.head(self.body(x.mul_(2)))), pool()
    before, state = inputs.clone(), {n: t.clone() for n, t in model.state_dict().items()}
    agrees(model, inputs)
    assert torch.equal(inputs, before)
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
