"""The engines against each other, the reference against an oracle of its own, and all against the paper."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import cache, partial

import models
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import saal_fast
from saal_fast.engines import ENGINES
from saal_fast.engines.ghost import engine as ghost
from saal_fast.engines.ghost.backends import backends_for
from saal_fast.engines.layers import conv
from saal_fast.tasks import logits_of

TOLERANCE = {  # relative
    torch.float64: {"perturbed_loss": 1e-9, "loss": 1e-9, "grad_norm": 1e-9},
    torch.float32: {"perturbed_loss": 1e-4, "loss": 1e-4, "grad_norm": 1e-3},
}
ABSOLUTE = {torch.float64: 1e-13, torch.float32: 1e-6}

RULES = {
    "L2": {"rho": 0.3},
    "L1.5": {"rho": 0.3, "norm": 1.5},
    "L3": {"rho": 0.2, "norm": 3},
    "Linf": {"rho": 0.01, "norm": math.inf},
    "adaptive": {"rho": 0.2, "adaptive": True},
}
ALL_FACTORED, ALL_MATERIALIZED = "ghost, everything factored", "ghost, everything materialized and channels last"
ALL_FUSED = "ghost, everything factored, by the operations that serve on CUDA"
IN_FP32 = (
    "mlp",
    "resnet",
    "vit",
    "convnext",
    "lstm",
    "gru",
    "bert",
    "conv2d_stride",
    "conv3d_plain",
    "embedding_tied_to_head",
    "multihead_attention",
    "transformer_encoder",
    "weight_norm",
)
LARGE = ("resnet", "vit", "convnext", "bert", "transformer_encoder")  # of IN_FP32: quickly by one rule, most by one type
GIVEN = torch.arange(models.SAMPLES) * 2 % models.CLASSES  # with one rule only: labels and rules know nothing of each other
VARIANTS = (ALL_FACTORED, ALL_MATERIALIZED, ALL_FUSED)


def pairs(quickly, names=models.NAMES):
    """Every rule with every model; slow but for those that are said to be quick."""
    return [
        pytest.param(name, rule, marks=() if quickly(name, rule) else pytest.mark.slow) for rule in RULES for name in names
    ]


def some_models(quickly):
    return [name if name in quickly else pytest.param(name, marks=pytest.mark.slow) for name in models.NAMES]


ALL_PAIRS = pairs(
    lambda name, rule: (rule == "L2" and name not in models.SPELLINGS) or (name in IN_FP32 and name not in LARGE)
)
VARIED_PAIRS = pairs(
    lambda name, rule: name in IN_FP32 and (rule == "L2" or (rule in ("L3", "adaptive") and name not in LARGE))
)
IN_FP32_PAIRS = pairs(
    lambda name, rule: (
        (rule == "L2" and (name == "vit" or name not in LARGE))
        or (rule == "adaptive" and name in ("mlp", "conv2d_stride", "lstm"))
    ),
    IN_FP32,
)


@cache
def built(name, dtype):
    return models.build(name, dtype)


def scores_of(case, *, engine, **options):
    options = {"params": case.params, "check": False} | options  # the self-check is held to these models in tests/scoring
    with pytest.MonkeyPatch.context() as patch:
        if engine == ALL_FACTORED:
            models.factor_everything(patch)
        if engine == ALL_MATERIALIZED:
            models.factor_everything(patch, "materialized", "ghost", "tiled")
            patch.setattr(
                conv, "MIN_PIXELS_CHANNELS_LAST", 5
            )  # some of these models' images are large, and become small on the way
        if engine == ALL_FUSED:
            models.factor_everything(patch)
            patch.setattr(ghost, "backends_for", partial(backends_for, fused=True))  # their twins for the CPU
        engine = "ghost" if engine in (ALL_FACTORED, ALL_MATERIALIZED, ALL_FUSED) else engine
        return saal_fast.score(case.model, case.pool, details=True, engine=engine, **options)


def differences(got, want, *, dtype):
    """What differs between two `Scores`, a line a quantity."""
    found = []
    for quantity, tolerance in TOLERANCE[dtype].items():
        a, b = getattr(got, quantity).double(), getattr(want, quantity).double()
        bad = ~torch.isclose(a, b, rtol=tolerance, atol=ABSOLUTE[dtype])
        if bad.any():
            worst = ((a - b).abs() / b.abs()).max().item()
            found.append(f"{quantity}: {a.tolist()} for {b.tolist()} (relative {worst:.1e} > {tolerance:.0e})")
    for quantity in ("label", "perturbed_label", "finite"):
        a, b = getattr(got, quantity), getattr(want, quantity)
        if not torch.equal(a, b):
            found.append(f"{quantity}: {a.tolist()} for {b.tolist()}")
    return found


def check_equal(case, *, engines, dtype, want=None, **options):
    """Holds engines to the reference; all that differs is told together, with the parameters that differ taken alone."""
    want = want or scores_of(case, engine="reference", **options)
    assert not torch.equal(want.perturbed_loss, want.loss), "nothing was perturbed: there is nothing to check"
    assert len(want.loss.unique()) > 1, "all samples are alike: mixing them up would not be seen"
    report = []
    for engine in engines:
        found = differences(scores_of(case, engine=engine, **options), want, dtype=dtype)
        if found:
            culprits = parameters_that_differ(case, engine=engine, dtype=dtype, **options)
            report += [f"{engine}, {line}" for line in found] + [f"{engine}, of parameters alone: {culprits or 'none'}"]
    assert not report, "\n".join(["engines differ from the reference:", *report])


def parameters_that_differ(case, *, engine, dtype, **options):
    bad = []
    for name, p in case.model.named_parameters():
        if p.requires_grad and (case.params is None or case.params(name)):
            alone = dict(options, params={name}.__contains__)
            want, got = (scores_of(case, engine=e, **alone) for e in ("reference", engine))
            if differences(got, want, dtype=dtype):
                bad.append(name)
    return bad


# --- engine against engine ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(("name", "rule"), ALL_PAIRS)
def test_engines_agree(name, rule):
    check_equal(built(name, torch.float64), engines=["vmap", "ghost"], dtype=torch.float64, **RULES[rule])


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(("name", "rule"), VARIED_PAIRS)
def test_variants_of_ghost_agree(name, rule):
    check_equal(built(name, torch.float64), engines=VARIANTS, dtype=torch.float64, **RULES[rule])


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", some_models(quickly=set(IN_FP32) - set(LARGE)))
def test_engines_agree_by_given_labels(name):
    engines = ["vmap", "ghost", *VARIANTS]
    check_equal(built(name, torch.float64), engines=engines, dtype=torch.float64, labels=GIVEN, **RULES["L2"])


@pytest.mark.parametrize(("name", "rule"), IN_FP32_PAIRS)
def test_engines_agree_in_fp32(name, rule):
    case = built(name, torch.float32)
    want = scores_of(built(name, torch.float64), engine="reference", **RULES[rule])
    engines = ["reference", "vmap", "ghost", *VARIANTS]
    check_equal(case, engines=engines, dtype=torch.float32, want=want, **RULES[rule])


@pytest.mark.parametrize(
    "name", ["mlp", "lstm_packed", "branches", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet", "bert"))]
)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_do_not_matter(name, batch_size):
    case = built(name, torch.float64)
    engines = ["reference", "vmap", "ghost"]
    want = scores_of(case, engine="reference", **RULES["L2"])
    check_equal(case, engines=engines, dtype=torch.float64, want=want, batch_size=batch_size, **RULES["L2"])


@pytest.mark.parametrize(
    ("name", "rule"),
    pairs(lambda name, rule: name == "mlp" or (name == "lstm" and rule == "L2"), ("mlp", "resnet", "lstm", "vit", "bert")),
)
def test_no_radius_gives_the_loss(name, rule):
    case = built(name, torch.float64)
    options = RULES[rule] | {"rho": 0}
    want = scores_of(case, engine="reference", **options)
    assert_same(want.perturbed_loss, want.loss)
    assert name == "vit" or torch.equal(want.perturbed_loss, want.loss)  # without a gradient its attention runs fused
    norm = scores_of(case, engine="reference", **RULES[rule]).grad_norm
    for engine in ("vmap", "ghost", *VARIANTS):
        scores = scores_of(case, engine=engine, **options)
        assert_same(scores.perturbed_loss, scores.loss)
        torch.testing.assert_close(scores.grad_norm, norm, rtol=TOLERANCE[torch.float64]["grad_norm"], atol=0.0)


def assert_same(a, b):
    """Equal but for rounding: weights of one's own are multiplied by other kernels than shared ones."""
    torch.testing.assert_close(a, b, rtol=100 * torch.finfo(a.dtype).eps, atol=0.0)


# --- the reference against an oracle --------------------------------------------------------------


def oracle(case, *, rho, norm=2, adaptive=False, labels=None):
    """Eq. 3 and Eq. 6, sample by sample, on a copy of the model whose weights are really changed: [N] each."""
    model = copy.deepcopy(case.model).eval()
    chosen = [p for n, p in model.named_parameters() if p.requires_grad and (case.params is None or case.params(n))]
    size = len(next(iter(case.pool.values()))) if isinstance(case.pool, Mapping) else len(case.pool)
    rows = []
    for i in range(size):
        if isinstance(case.pool, Mapping):
            output = lambda: logits_of(model(**{k: v[i : i + 1] for k, v in case.pool.items()}))  # noqa: B023, E731
        else:
            output = lambda: logits_of(model(case.pool[i : i + 1]))  # noqa: B023, E731
        model.zero_grad()
        logits = output()
        label = logits.argmax(1) if labels is None else labels[i : i + 1]
        loss = F.cross_entropy(logits, label)
        loss.backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in chosen]
        weights = [p.detach().clone() for p in chosen]
        g, w = (torch.cat([t.flatten() for t in parts]) for parts in (grads, weights))
        if adaptive:
            dual = (w * g).norm()
            step = rho * w**2 * g / dual
        else:
            q = 1 / (1 - 1 / norm)
            dual = g.norm(q)
            step = rho * g.sign() * g.abs() ** (q - 1) / (g.abs() ** q).sum() ** (1 / norm)
        with torch.no_grad():
            for p, part in zip(chosen, step.split([p.numel() for p in chosen]), strict=True):
                p.add_(part.view_as(p))
            moved = output()
            rows.append((F.cross_entropy(moved, label), loss.detach(), dual, label[0], moved.argmax(1)[0]))
            for p, before in zip(chosen, weights, strict=True):
                p.copy_(before)
    perturbed, plain, dual, label, perturbed_label = (torch.stack(column) for column in zip(*rows, strict=True))
    finite = torch.ones(size, dtype=torch.bool)
    return saal_fast.Scores(perturbed, plain, dual, label, perturbed_label, finite, "oracle", None)


@pytest.mark.parametrize(("name", "rule"), ALL_PAIRS)
def test_reference_is_the_definition(name, rule):
    case = built(name, torch.float64)
    check_equal(case, engines=["reference"], dtype=torch.float64, want=oracle(case, **RULES[rule]), **RULES[rule])


@pytest.mark.parametrize("name", some_models(quickly=set(IN_FP32) - set(LARGE)))
def test_reference_is_the_definition_by_given_labels(name):
    case, options = built(name, torch.float64), RULES["L2"] | {"labels": GIVEN}
    check_equal(case, engines=["reference"], dtype=torch.float64, want=oracle(case, **options), **options)


# --- the paper ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [*ENGINES, ALL_FACTORED, ALL_FUSED])
@pytest.mark.parametrize(
    ("name", "rule"),
    pairs(
        lambda name, rule: name == "linear_used_twice" or (name == "lstm" and rule == "L2"),
        ("linear_used_twice", "lstm", "mlp", "vit"),  # smooth
    ),
)
def test_sharpness_over_rho_tends_to_the_dual_norm(name, rule, engine):
    """Theorem 3.3; what is left over is of the order of rho."""
    case = built(name, torch.float64)
    left_over = []
    for rho in (1e-4, 1e-5):
        scores = scores_of(case, engine=engine, **RULES[rule] | {"rho": rho})
        left_over.append((scores.sharpness / rho - scores.grad_norm).abs())
    assert (left_over[0] < 0.1 * scores.grad_norm).all()
    ratio = left_over[1] / left_over[0]
    assert ((ratio > 0.08) & (ratio < 0.12)).all(), ratio


class Recorded(nn.Module):
    """A model that keeps the weights it was called with."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
        self.seen = []

    def forward(self, x):
        self.seen.append({name: p.detach().clone() for name, p in self.named_parameters()})
        return self.body(x)


@pytest.mark.parametrize("rule", RULES)
def test_the_step_taken_is_as_long_as_rho(rule):
    torch.manual_seed(0)
    model, seen = Recorded().double(), []
    options = RULES[rule]
    x = torch.randn(2, 5, dtype=torch.float64)
    model.register_forward_hook(lambda module, *_: seen.append(module.seen[-1]))
    saal_fast.score(model, x, engine="reference", check=False, **options)  # the check's copies run the hook too
    moves = [
        torch.cat([(w - model.get_parameter(n)).flatten() for n, w in weights.items()]).detach()
        for weights in seen
        if any(not torch.equal(w, model.get_parameter(n)) for n, w in weights.items())
    ]
    assert len(moves) == len(x)
    if options.get("adaptive"):
        w = torch.cat([p.detach().flatten() for p in model.parameters()]).abs()
        moves = [move / w for move in moves]
    for move in moves:
        torch.testing.assert_close(
            move.norm(options.get("norm", 2)).item(), options["rho"], rtol=TOLERANCE[torch.float64]["loss"], atol=0.0
        )


# --- the edges ------------------------------------------------------------------------------------


def dead_networks():
    def zero_head():
        model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
        nn.init.zeros_(model[2].weight)
        return model, lambda name: name.startswith("0")

    def dead_relu():
        model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
        nn.init.constant_(model[0].bias, -100)
        return model, lambda name: name.startswith("0")

    def unused():
        return models.Function(lambda self, x: self.used(x), used=nn.Linear(5, 3), rest=nn.Linear(5, 3)), {
            "rest.weight"
        }.__contains__

    return {"zero head": zero_head, "dead relu": dead_relu, "unused": unused}


@pytest.mark.parametrize("dtype", [pytest.param(torch.float64, marks=pytest.mark.slow), torch.float32])
@pytest.mark.parametrize("engine", [*ENGINES, ALL_FACTORED, ALL_FUSED])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", dead_networks())
def test_zero_gradient_leaves_the_loss(kind, rule, engine, dtype):
    torch.manual_seed(0)
    model, params = dead_networks()[kind]()
    pool = torch.randn(3, 1, 5) if kind == "dead relu" else torch.randn(3, 5)
    case = models.Case(model.to(dtype), pool.to(dtype), params)
    scores = scores_of(case, engine=engine, **RULES[rule])
    assert_same(scores.perturbed_loss, scores.loss)
    assert torch.equal(scores.grad_norm, torch.zeros(3, dtype=dtype))


def confident(margins):
    """A linear model and a sample for each margin between its two largest logits."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(torch.eye(*layer.weight.shape) + 0.01 * torch.randn(layer.weight.shape))
            layer.bias.zero_()
    x = torch.zeros(len(margins), 3)
    x[torch.arange(len(margins)), torch.arange(len(margins)) % 3] = margins
    return models.Case(model, x)


@pytest.mark.parametrize("rule", RULES)
def test_confident_samples_keep_their_digits_and_their_order(rule):
    torch.manual_seed(0)
    case = confident(torch.linspace(40, 80, 9))
    options = RULES[rule] | {"rho": RULES[rule]["rho"] / 100}
    exact = scores_of(models.Case(copy.deepcopy(case.model).double(), case.pool.double()), engine="reference", **options)
    assert exact.loss.max() < 1e-12
    for engine in (*ENGINES, ALL_FACTORED, ALL_FUSED):
        scores = scores_of(case, engine=engine, **options)
        assert (scores.perturbed_loss > scores.loss).all(), engine
        assert torch.equal(scores.perturbed_loss.argsort(), exact.perturbed_loss.argsort()), engine
        torch.testing.assert_close(scores.perturbed_loss.log(), exact.perturbed_loss.log().float(), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("engine", [*ENGINES, ALL_FACTORED, ALL_FUSED])
@pytest.mark.parametrize("rule", RULES)
def test_nearly_certain_samples_are_ordered_to_the_end_of_fp32(rule, engine):
    torch.manual_seed(0)
    scores = scores_of(confident(torch.linspace(40, 100, 13)), engine=engine, **RULES[rule] | {"rho": 1e-3})
    assert scores.finite.all()
    assert (scores.perturbed_loss >= scores.loss).all()
    normal = scores.loss > torch.finfo(torch.float32).tiny  # below, the square of even a rescaled gradient is 0
    assert (scores.perturbed_loss > scores.loss)[normal].all()
    assert normal.sum() > 9
    for k in range(3):  # samples of one class, by rising margin
        assert (scores.perturbed_loss[k::3].diff() < 0).all()
