"""Derivatives of what runs by other means: by finite differences, as torch has them, a second time, forwards, by `vmap`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import hessian, jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from truth import assert_true, truth_of

import saal_fast
from saal_fast.engines.layers import VmapReplacements

CLOSE = {"rtol": 1e-9, "atol": 1e-10}
MEAN, VAR = torch.tensor([0.1, -0.2, 0.3]).double(), torch.tensor([0.5, 1.0, 2.0]).double()
SEEN = torch.tensor([[True, False, True, True], [True, True, False, False], [True] * 4])


def batch_norm(x, weight, bias):
    return F.batch_norm(x, MEAN, VAR, weight, bias, eps=1e-3)


def layer_norm(x, weight, bias):
    return F.layer_norm(x, weight.shape, weight, bias, 1e-3)


def attention(**options):
    def attend(q, k, v):
        with sdpa_kernel(SDPBackend.MATH):  # torch's fused kernels are differentiated once, and backwards, only
            return F.scaled_dot_product_attention(q, k, v, **options)

    return attend


ATTENDED = ([1, 2, 3, 5], [1, 2, 4, 5], [1, 2, 4, 5])
FUNCTIONS = {  # and the shapes of what it is differentiated by
    "batch norm": (batch_norm, [1, 3, 4, 2], [3], [3]),
    "batch norm of vectors": (batch_norm, [1, 3], [3], [3]),
    "layer norm": (layer_norm, [1, 4, 6], [6], [6]),
    "layer norm over two dimensions": (layer_norm, [1, 2, 3, 6], [3, 6], [3, 6]),
    "layer norm without a bias": (lambda x, weight: F.layer_norm(x, (6,), weight), [1, 4, 6], [6]),
    "attention": (attention(), *ATTENDED),
    "attention, scaled": (attention(scale=0.7), *ATTENDED),
    "attention, causal": (attention(is_causal=True), *ATTENDED),
    "attention, masked": (attention(attn_mask=SEEN), *ATTENDED),
    "attention, a mask that is added": (attention(attn_mask=torch.linspace(-1, 1, 4).double()[None, None, None]), *ATTENDED),
    "attention of shared keys": (attention(enable_gqa=True), [1, 2, 3, 5], [1, 1, 4, 5], [1, 1, 4, 5]),
    "attention to narrow values": (attention(), [1, 2, 3, 5], [1, 2, 4, 5], [1, 2, 4, 3]),
}
functions = pytest.mark.parametrize("name", FUNCTIONS)


def drawn(name, samples=None):
    """A function, and arguments for it; of each sample's own."""
    function, *shapes = FUNCTIONS[name]
    torch.manual_seed(0)
    lead = [] if samples is None else [samples]
    return function, [torch.randn(*lead, *shape, dtype=torch.float64) for shape in shapes]


def replaced(function):
    def run(*args):
        with VmapReplacements():
            return function(*args)

    return run


@functions
def test_by_finite_differences_once_and_twice(name):
    function, args = drawn(name)
    args = [t.requires_grad_() for t in args]
    assert torch.autograd.gradcheck(replaced(function), args)
    assert torch.autograd.gradgradcheck(replaced(function), args)


@functions
def test_forwards_and_twice_as_torch_has_it(name):
    function, args = drawn(name)
    tangents = tuple(torch.randn_like(t) for t in args)
    torch.testing.assert_close(jvp(replaced(function), tuple(args), tangents), jvp(function, tuple(args), tangents), **CLOSE)

    def curvature(function):
        return hessian(lambda *args: function(*args).sin().sum(), argnums=tuple(range(len(args))))(*args)

    torch.testing.assert_close(curvature(replaced(function)), curvature(function), **CLOSE)


@functions
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("graph", [False, True])
def test_of_each_sample(name, shared, graph):
    """Also where the last arguments are shared, and where the pass back records no graph, as in the fast engine."""
    function, args = drawn(name, samples=3)
    n = len(args)
    args = [args[0], *(t[0] for t in args[1:])] if shared else args
    dims = (0, *(None if shared else 0,) * (n - 1))

    def gradients(function, *args):
        out, back = vjp(function, *args)
        with torch.set_grad_enabled(graph):
            return back(out.cos())

    each = [[t if d is None else t[i] for t, d in zip(args, dims, strict=True)] for i in range(3)]
    want = [torch.stack(made) for made in zip(*(gradients(function, *sample) for sample in each), strict=True)]
    got = vmap(lambda *args: gradients(replaced(function), *args), in_dims=dims)(*args)
    torch.testing.assert_close(list(got), want, **CLOSE)


class Differentiates(nn.Module):
    """A network of norms and attention that takes derivatives of itself."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.encode, self.head = nn.Linear(2, 3), nn.Linear(2, 2)
        self.norm, self.scale = nn.LayerNorm(3), nn.BatchNorm1d(2)
        for p in (self.norm.weight, self.scale.weight, self.scale.running_mean):
            p.data = torch.rand_like(p) + 0.5

    def energy(self, x):  # [1, 9, 2]
        h = self.encode(self.scale(x.mT).mT)
        h = (h if self.how == "jvp" else self.norm(h))[:, None]  # torch's layer norm is wrong backwards after forwards
        return attention()(h, h.sin(), h).tanh().sum()

    def forward(self, x):
        if self.how == "autograd":
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad(self.energy(x), x, create_graph=True)
        elif self.how == "grad":
            slope = torch.func.grad(self.energy)(x)
        else:
            slope = jvp(self.energy, (x,), (torch.ones_like(x),))[1] * x.cos()
        return self.head(slope.mean(1))


@pytest.mark.parametrize("how", ["autograd", "grad", "jvp"])
@pytest.mark.parametrize("engine", ["auto", "vmap"])
def test_models_that_differentiate_themselves(how, engine):
    def make():
        torch.manual_seed(0)
        return Differentiates(how).double()

    x = torch.randn(2, 9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = truth_of(make, x)
    assert_true(saal_fast.score(make().eval(), x, details=True, engine=engine), expected)
