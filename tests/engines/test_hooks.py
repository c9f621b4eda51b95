"""Hooks, and what a forward pass says to the graph: each engine gives what plain autograd gives, hooks included."""

import functools
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import saal_fast
from tests.truth import assert_true, truth_of

ENGINES = ("auto", "ghost", "vmap", "reference")
MODELS, BY_REFERENCE = {}, {}


def case(make=None, *, reference=None):
    """Registers a function that gives a model of 4 inputs; `reference`: why no other engine runs it, in a word."""

    def register(make):
        MODELS[make.__name__] = make
        if reference:
            BY_REFERENCE[make.__name__] = reference
        return make

    return register if make is None else register(make)


class Net(nn.Module):
    def __init__(self, between=torch.tanh):
        super().__init__()
        self.enc, self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.between = between

    def forward(self, x):
        h = self.enc(x)
        return self.head(self.mix(self.between(h)).tanh())


def with_graph(model, x):
    """Hooks on gradients refuse to be registered without a graph."""
    with torch.enable_grad():
        return model(x)


def make(name):
    torch.manual_seed(0)
    return MODELS[name]().double()


def pool(count=3):
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# --- requests for gradients ----------------------------------------------------------------------------


@case
def forward_hook_that_asks_for_gradients():
    model = Net(lambda h: h.mul_(2).tanh())  # in place on what was asked for
    model.enc.register_forward_hook(lambda module, args, out: out.requires_grad_(True))
    return model


@case
def forward_hook_that_asks_and_returns_nothing():
    model = Net()

    def ask(module, args, out=None):
        (args[0] if out is None else out).requires_grad_()

    model.enc.register_forward_hook(ask)
    model.register_forward_pre_hook(ask)
    return model


class AsksForTheInput(Net):
    def forward(self, x):
        x.requires_grad = True
        y = x.clone()
        y.requires_grad_()
        return super().forward(y + x.detach().requires_grad_(False))


case(AsksForTheInput)


class Retains(Net):
    def forward(self, x):
        h = self.enc(x)
        h.retain_grad()
        return self.head(self.mix(h).tanh())


case(Retains)


@case
def detaches_in_place():
    return Net(lambda h: h.tanh() + h.clone().detach_())


class DifferentiatesItsInput(Net):
    """The output depends on the gradient of an energy by the input, as in models of forces."""

    def forward(self, x):
        x = x.requires_grad_()
        energy = self.enc(x).tanh().square().sum()
        (force,) = torch.autograd.grad(energy, x, create_graph=True)
        return self.head(force + self.mix(x))


case(DifferentiatesItsInput)


# --- hooks on gradients --------------------------------------------------------------------------------


def hooked(h, hook):
    h.register_hook(hook)
    return h.tanh()


@case
def tensor_hook():
    return Net(lambda h: hooked(h, lambda grad: grad * 0.3))


@case
def tensor_hook_that_is_not_linear():
    return Net(lambda h: hooked(h, lambda grad: grad.clamp(-0.01, 0.02)))


@case
def tensor_hook_that_adds():
    return Net(lambda h: hooked(h, lambda grad: grad + 0.05))


@case
def tensor_hook_taken_off_again():
    def between(h):
        h.register_hook(lambda grad: grad * 9).remove()
        return h.tanh()

    return Net(between)


@case
def tensor_hook_where_there_is_a_gradient():
    return Net(lambda h: hooked(h, lambda grad: grad * 0.3) if h.requires_grad else h.tanh())


@case
def tensor_hook_on_a_view():
    def between(h):
        first, second = h.chunk(2, 1)
        first.register_hook(lambda grad: grad * 3)
        return torch.cat([first, second], 1).tanh()

    return Net(between)


@case
def full_backward_hooks():
    model = Net()
    model.enc.register_full_backward_hook(lambda module, by_input, by_output: None)
    model.mix.register_full_backward_hook(lambda module, by_input, by_output: (by_input[0] * 0.5,))
    model.head.register_full_backward_pre_hook(lambda module, by_output: (by_output[0].clamp(-0.1, 0.2),))
    return model


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, a, scale, b):
        return self.one(a) * scale, self.two(b), "no tensor"


class OfPairs(Net):
    def __init__(self):
        super().__init__()
        self.pair = Pair()

    def forward(self, x):
        h = self.enc(x)
        one, two, _ = self.pair(h, 0.5, h.tanh())
        return self.head(one * two)


@case
def full_backward_hook_of_several_inputs_and_outputs():
    model = OfPairs()
    model.pair.register_full_backward_hook(lambda module, by_inputs, _: (by_inputs[0] * 2, None, by_inputs[2] * 3))
    model.pair.register_full_backward_pre_hook(lambda module, by_outputs: (by_outputs[0] * 0.7, *by_outputs[1:]))
    return model


@case
def full_backward_hook_that_looks_at_values():
    model = Net()
    model.seen = []
    model.mix.register_full_backward_hook(lambda module, by_input, _: model.seen.append(by_input[0].norm().item()))
    return model


@case
def full_backward_hook_on_the_whole():
    model = nn.Sequential(Net(), nn.Tanh())
    model.register_full_backward_hook(lambda module, by_input, by_output: None)
    model.register_full_backward_pre_hook(lambda module, by_output: tuple(g * 2 for g in by_output))
    return model


@case(reference="register_backward_hook")
def backward_hook_of_the_old_kind():
    model = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.mix.register_backward_hook(lambda module, by, _: (by[0] * 0.5, by[1], by[2] * 3))  # bias, input, weight
    return model


@case
def hook_on_a_node():
    def between(h):
        h = h.tanh()
        if h.grad_fn is not None:
            h.grad_fn.register_prehook(lambda grads: tuple(g.clamp(-0.01, 0.02) for g in grads))
        return h

    return Net(between)


@case
def parametrized_and_hooked():
    class Masked(nn.Module):
        def forward(self, weight):
            masked = weight * (weight > 0)
            if masked.requires_grad:
                masked.register_hook(lambda grad: grad * 0.5)
            return masked

    model = Net()
    parametrize.register_parametrization(model.mix, "weight", Masked())
    return model


class Anew(torch.autograd.Function):
    """Checkpointing of one's own, as in guided-diffusion: the backward pass runs modules anew."""

    @staticmethod
    def forward(ctx, run, length, *args):
        ctx.run, ctx.inputs, ctx.params = run, list(args[:length]), list(args[length:])
        with torch.no_grad():
            return run(*ctx.inputs)

    @staticmethod
    def backward(ctx, *grads):
        ctx.inputs = [x.detach().requires_grad_(True) for x in ctx.inputs]
        with torch.enable_grad():
            out = ctx.run(*[x.view_as(x) for x in ctx.inputs])
        found = torch.autograd.grad(out, ctx.inputs + ctx.params, grads, allow_unused=True)
        return None, None, *found


class CheckpointsByItself(Net):
    def forward(self, x):
        h = self.enc(x)
        h = Anew.apply(lambda y: self.mix(y).tanh() * y, 1, h, *self.mix.parameters())
        return self.head(h)


case(CheckpointsByItself)


@case
def hook_that_reads_a_weight():
    model = Net()
    model.mix.register_full_backward_hook(lambda module, by_input, _: (by_input[0] * module.weight.abs().mean(),))
    return model


@case
def saved_on_the_cpu():
    def between(h):
        with torch.autograd.graph.save_on_cpu():
            return h.tanh() * h

    return Net(between)


@case(reference="saved tensor hooks")
def saved_with_loss():
    """What is saved for the backward pass is rounded: the gradient is that of the rounded values."""

    def between(h):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.round(decimals=1), lambda t: t):
            return h.square() * h

    return Net(between)


@case
def data_parallel_of_a_hooked_model():
    model = Net(lambda h: hooked(h, lambda grad: grad * 0.3))
    model.mix.register_full_backward_hook(lambda module, by_input, by_output: (by_input[0] * 0.5,))
    return nn.Sequential(nn.DataParallel(model, device_ids=[]), nn.Identity())


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MODELS)
def test_hooks_do_what_they_do_in_plain_autograd(name, engine):
    expected = "reference" if name in BY_REFERENCE else "ghost"
    if engine in ("ghost", "vmap") and expected == "reference":
        with pytest.raises(saal_fast.EngineError, match=BY_REFERENCE[name]):
            saal_fast.score(make(name), pool(), details=True, engine=engine)
        return
    truth = truth_of(functools.partial(make, name), pool(), differences=False, forward=with_graph)
    scores = saal_fast.score(make(name), pool(), details=True, engine=engine)
    assert scores.engine == (expected if engine == "auto" else engine), scores.fallback
    assert_true(scores, truth, rtol=1e-9)
