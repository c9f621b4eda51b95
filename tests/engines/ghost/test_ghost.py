"""What ghost factors, that it forms no gradient of what it factors, and that its cross terms are there."""

from __future__ import annotations

import models
import pytest
import torch
from scored import scored
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import saal_fast
from saal_fast.engines import ENGINES, EngineError, Problem
from saal_fast.engines.ghost import Ghost, factors
from saal_fast.engines.ghost.backends import Backends
from saal_fast.engines.ghost.plan import mode_costs, plan_for
from saal_fast.engines.layers import LayerCall
from saal_fast.engines.layers.linear import Linear
from saal_fast.perturbation import L2, Adaptive
from saal_fast.pools import Batch
from saal_fast.tasks import Classification

CLOSE = {"rtol": 1e-9, "atol": 0.0}


def planned(model, *args, params=None, rule=None, **kwargs):
    problem = Problem.of(model.eval(), rule or L2(0.05), Classification(), params)
    return plan_for(problem, Batch(args, kwargs, 1))


# --- the plan -------------------------------------------------------------------------------------


def test_plan_of_resnet18():
    """Where there are few positions Gram matrices are kept; where there are many, and the weight is small, its gradient."""
    from torchvision.models import resnet18  # noqa: PLC0415

    model = resnet18(num_classes=10)
    found = planned(model, torch.randn(1, 3, 64, 64))
    names = {name for name, _ in model.named_parameters()}
    assert set(found.factored) | set(found.autograd) == names
    assert not set(found.factored) & set(found.autograd)
    assert {"fc.weight", "fc.bias"} <= set(found.factored)
    modes = {call.weight: call.mode for call in found.calls}
    assert {mode for name, mode in modes.items() if name.startswith("layer4") and "conv" in name} == {"ghost"}
    assert modes["conv1.weight"] == "materialized"
    rule = Adaptive(0.05)
    modes = {call.weight: call.mode for call in planned(model, torch.randn(1, 3, 64, 64), rule=rule).calls}
    assert modes["conv1.weight"] == "materialized"
    assert modes["layer4.1.conv2.weight"] == "tiled"
    assert all(n in found.autograd for n in names if "bn" in n)
    assert len(found.calls) == len([n for n in found.factored if n.endswith("weight")])  # each is used once


def test_plan_of_a_vision_transformer():
    """Every matrix is factored, and those inside of attention are seen too; norms and the class token are direct."""
    from torchvision.models import VisionTransformer  # noqa: PLC0415

    model = VisionTransformer(64, 16, num_layers=2, num_heads=4, hidden_dim=128, mlp_dim=256, num_classes=10)
    found = planned(model, torch.randn(1, 3, 64, 64))
    matrices = {n for n, p in model.named_parameters() if n.endswith("weight") and p.ndim > 1}
    assert any("in_proj" in n or "out_proj" in n for n in matrices)
    in_proj = {n for n, _ in model.named_parameters() if "in_proj" in n}
    assert matrices | in_proj <= set(found.factored)
    assert not [n for n in found.factored if ".ln" in n or n == "class_token" or "pos_embedding" in n]


@pytest.mark.parametrize("name", ["bert", "transformer_encoder"])
def test_plan_of_small_transformers(name, monkeypatch):
    models.factor_everything(monkeypatch)
    case = models.build(name, torch.float32)
    if isinstance(case.pool, dict):
        found = planned(case.model, **{k: v[:1] for k, v in case.pool.items()})
    else:
        found = planned(case.model, case.pool[:1])
    norms = {n for n, p in case.model.named_parameters() if "norm" in n.lower()}
    assert set(found.autograd) == norms


def test_biases_travel_with_their_weight_only_where_both_are_used_alike():
    two = models.build("weight_shared_bias_not").model
    found = planned(two, torch.randn(1, 5, dtype=torch.float64))
    assert {"0.bias", "2.bias"} <= set(found.autograd)


@pytest.mark.parametrize("name", ["weight_used_outside_its_layer", "embedding_tied_by_matmul", "parameter_as_input"])
def test_what_is_also_used_outside_of_known_layers_is_direct(name, monkeypatch):
    models.factor_everything(monkeypatch)
    case = models.build(name)
    found = planned(case.model, case.pool[:1])
    loose = {"weight_used_outside_its_layer": "layer.weight", "embedding_tied_by_matmul": "embedding.weight"}
    assert loose.get(name, "queries") in found.autograd


def test_rules_that_act_element_by_element_take_tiles_of_weights_used_once(monkeypatch):
    models.factor_everything(monkeypatch)
    case = models.build("mlp")
    found = planned(case.model, case.pool[:1], rule=Adaptive(0.05))
    assert {call.mode for call in found.calls} == {"tiled"}
    assert set(found.factored) == {"0.weight", "2.weight", "4.weight"}
    assert set(found.autograd) == {"0.bias", "4.bias"}
    twice = models.build("linear_used_twice")
    assert planned(twice.model, twice.pool[:1], rule=Adaptive(0.05)).factored == ("head.weight",)


def test_ways_and_their_costs():
    """A weight of 512 × 512 at 4 positions, at 4,000, and where the gradient alone is what there is."""
    layer, weight = Linear(), torch.empty(512, 512)

    def modes(positions, times=1, linear=True):
        call = LayerCall(layer, torch.empty(1, positions, 512), weight, None)
        return mode_costs([(call, (1, positions, 512))] * times, linear)

    moved = 32 * 512**2
    assert modes(4) == {"autograd": 4 * 512**2 + 3 * moved, "ghost": 4 * 4**2 * 512, "materialized": 4 * 512**2 + 2 * moved}
    assert min(modes(4000), key=modes(4000).get) == "materialized"
    assert modes(4, times=3).keys() == {"autograd", "ghost"}
    assert modes(4, linear=False).keys() == {"autograd", "tiled", "materialized"}
    assert min(modes(4, linear=False), key=modes(4, linear=False).get) == "tiled"
    assert modes(4, times=2, linear=False).keys() == {"autograd"}


def test_what_a_model_writes_over_is_seen_in_the_plan():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))
    assert [call.overwritten for call in planned(model, torch.randn(1, 4)).calls] == [True, False]
    pool = torch.randn(5, 4)
    ghost, want = (saal_fast.score(model, pool, engine=e, details=True) for e in ("ghost", "reference"))
    torch.testing.assert_close(ghost.grad_norm, want.grad_norm)
    torch.testing.assert_close(ghost.perturbed_loss, want.perturbed_loss)


class Hooked(nn.Module):
    """Changes a gradient on its way back, by a hook on a layer's output."""

    def __init__(self, on_module):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.on_module = on_module
        if on_module:
            self.second.register_forward_hook(lambda _, args, out: self.hook(out))

    @staticmethod
    def hook(out):
        if out.requires_grad:
            out.register_hook(lambda g: g.clamp(-0.01, 0.01))

    def forward(self, x):
        h = self.second(self.first(x).relu())
        if not self.on_module:
            self.hook(h)
        return self.third(h.relu())


@pytest.mark.parametrize("rule", [{}, {"adaptive": True}])
@pytest.mark.parametrize("on_module", [False, True])
def test_hooks_on_outputs_act_on_the_gradient_of_the_layer(on_module, rule):
    model, pool = Hooked(on_module).double(), torch.randn(5, 6, dtype=torch.float64)
    options = {"details": True, **rule}
    ghost, want = (saal_fast.score(model, pool, engine=e, **options) for e in ("ghost", "reference"))
    torch.testing.assert_close(ghost.grad_norm, want.grad_norm, **CLOSE)
    torch.testing.assert_close(ghost.perturbed_loss, want.perturbed_loss, **CLOSE)


def test_a_model_that_writes_only_where_gradients_are_on():
    """The plan is made without them; the model is taken with care then."""

    class Writes(nn.Sequential):
        def forward(self, x):
            h = self[0](x)
            return self[1](h.relu_() if torch.is_grad_enabled() else h.relu())

    model, pool = Writes(nn.Linear(4, 8), nn.Linear(8, 3)), torch.randn(5, 4)
    for rule in ({}, {"adaptive": True}):
        ghost, want = (saal_fast.score(model, pool, engine=e, details=True, **rule) for e in ("ghost", "reference"))
        torch.testing.assert_close(ghost.grad_norm, want.grad_norm)
        torch.testing.assert_close(ghost.perturbed_loss, want.perturbed_loss)


def test_an_input_that_is_written_over_where_no_gradient_needs_it():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.aside, self.b = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 3)

        def forward(self, x):
            h = self.a(x) * 2
            aside = self.aside(h)
            h.relu_()
            return self.b(h), aside

    model, pool = Aside(), torch.randn(5, 4)
    ghost, want = (saal_fast.score(model, pool, engine=e) for e in ("ghost", "reference"))
    torch.testing.assert_close(ghost, want)


def test_what_is_compiled_inside_of_a_model_runs_as_written():
    model, pool = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(5, 4)
    want = saal_fast.score(model, pool, engine="reference")
    model.compile(backend="eager")
    torch.testing.assert_close(saal_fast.score(model, pool, engine="ghost"), want)
    assert model(pool).shape == (5, 3)


@pytest.mark.parametrize("rule", [{}, {"adaptive": True}])
def test_embeddings_with_sparse_gradients(rule):
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(9, 6, sparse=True), nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.table(x).mean(1))

    model, pool = Bag(), torch.arange(20).reshape(5, 4) % 9
    want = saal_fast.score(model, pool, engine="reference", **rule)
    for engine in ("ghost", "vmap"):
        torch.testing.assert_close(saal_fast.score(model, pool, engine=engine, **rule), want)


def test_only_chosen_parameters_are_planned():
    case = models.build("mlp")
    found = planned(case.model, case.pool[:1], params=lambda n: n.startswith("4"))
    assert {*found.factored, *found.autograd} == {"4.weight", "4.bias"}


# --- no weight gradient is formed -----------------------------------------------------------------


class Sizes(TorchDispatchMode):
    """Notes the shape of everything that is computed."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.shapes |= {tuple(t.shape) for t in tree_leaves(out) if isinstance(t, torch.Tensor)}
        return out


@pytest.mark.parametrize("engine", ["ghost", "vmap"])
def test_no_gradient_of_a_factored_weight_is_formed(engine):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(301, 203), nn.Tanh(), nn.Linear(203, 3))
    with Sizes() as seen:
        saal_fast.score(model, torch.randn(7, 301), engine=engine)
    own = {s for s in seen.shapes if s[:1] == (7,) and {301, 203} <= set(s)}
    assert bool(own) == (engine == "vmap")  # the control: vmap does form them


class Sqrt(L2):
    """Direction `sign(g) √|g|`: a rule of a user's own, which no fused operation knows."""

    linear, code = False, None

    def contribution(self, g, w):
        return g.abs().sum()

    def direction(self, g, w):
        return g.sign() * g.abs().sqrt()


def test_a_rule_without_fused_operations_is_left_to_autograd():
    case = models.build("conv2d_stride")
    batch = Batch((case.pool,), {}, len(case.pool))
    problem = Problem.of(case.model, Sqrt(0.1), Classification())
    with torch.no_grad():
        want, got = (ENGINES[name](problem)(batch) for name in ("reference", "ghost"))
    torch.testing.assert_close(got.perturbed_loss, want.perturbed_loss, **CLOSE)
    assert not torch.equal(got.perturbed_loss, got.loss)


# --- cross terms ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["linear_used_twice", "conv_called_twice", "conv_at_two_sizes_and_strides", "linear_used_on_one_and_on_many"]
)
def test_cross_terms_of_a_weight_used_twice_matter(name, monkeypatch):
    models.factor_everything(monkeypatch)
    case = models.build(name)
    want, got = (saal_fast.score(case.model, case.pool, 0.3, details=True, engine=e) for e in ("reference", "ghost"))
    torch.testing.assert_close(got.perturbed_loss, want.perturbed_loss, **CLOSE)
    torch.testing.assert_close(got.grad_norm, want.grad_norm, **CLOSE)

    def uses_alone(grams):
        return torch.stack([(u.gram(u.layer, u.a) * (u.g.mT @ u.g)).sum() for u in grams.uses]).sum()

    plain = Backends(fused_layers=(), fused_loss=False, flat=True)  # linear layers' own operation would join the uses before
    monkeypatch.setattr(factors.GramGhost, "total", uses_alone)
    without = scored(case.model, case.pool, 0.3, engine="ghost", backends=plain)
    assert ((without.grad_norm - want.grad_norm).abs() > 1e-3 * want.grad_norm).any()
    assert ((without.perturbed_loss - want.perturbed_loss).abs() > 1e-4 * want.perturbed_loss).any()


# --- inputs that change after use -----------------------------------------------------------------


def changed_later(kind):
    """Models that write over the input of a layer after it was used, before its gradient is taken."""

    def input_of_a_layer(self, x):
        h = self.first(x).tanh()
        h = h * 1  # of which autograd keeps nothing itself
        out = self.second(h)
        h.add_(1)
        return self.head(out + h)

    def through_a_view(self, x):
        h = self.first(x) * 1
        out = self.second(h)
        h[:, :2] = 0
        return self.head(out + h)

    def output_of_a_layer(self, x):  # which no gradient needs
        h = self.first(x)
        h += 1
        out = self.second(h)
        out.tanh_()
        return self.head(out)

    forward = {f.__name__: f for f in (input_of_a_layer, through_a_view, output_of_a_layer)}[kind]
    torch.manual_seed(0)
    parts = {"first": nn.Linear(5, 5), "second": nn.Linear(5, 5), "head": nn.Linear(5, 3)}
    return models.Function(forward, **parts).double(), torch.randn(3, 5, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["input_of_a_layer", "through_a_view"])
def test_an_input_written_over_is_an_error_as_it_is_in_autograd(kind, monkeypatch):
    models.factor_everything(monkeypatch)
    model, x = changed_later(kind)
    for engine in ("reference", "vmap", "ghost", "auto"):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            saal_fast.score(model, x, engine=engine)
    engine = Ghost(Problem.of(model.eval(), L2(0.3), Classification()))
    with pytest.raises(EngineError, match=r"the input of second.weight was changed in place"):
        engine(Batch((x,), {}, len(x)))


def test_an_output_written_over_is_fine(monkeypatch):
    models.factor_everything(monkeypatch)
    model, x = changed_later("output_of_a_layer")
    want, got = (saal_fast.score(model, x, 0.3, engine=e) for e in ("reference", "ghost"))
    torch.testing.assert_close(got, want, **CLOSE)


def test_a_pool_is_not_written_over():
    def forward(self, x):
        out = self.head(x * 1)
        x.zero_()
        return out

    model, x = models.Function(forward, head=nn.Linear(5, 3)), torch.randn(3, 5)
    before = x.clone()
    want, got = (saal_fast.score(model, x, 0.3, engine=e) for e in ("reference", "ghost"))
    torch.testing.assert_close(got, want)
    assert torch.equal(x, before)
