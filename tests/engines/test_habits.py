"""Models with habits (parameters reached past attributes, things kept, random draws), held to finite differences."""

import copy
import random
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import saal_fast
from saal_fast.models.features import logits, penultimate
from tests.truth import assert_true, truth_of

ENGINES = ("auto", "ghost", "vmap", "reference")
MODELS, BY_REFERENCE, AUTOGRAD = {}, set(), set()


def case(build=None, *, reference=False, autograd=False):
    """Registers a model; `reference`: no engine but the reference runs it; `autograd`: the true gradient is its."""

    def register(cls):
        MODELS[cls.__name__] = cls
        if reference:
            BY_REFERENCE.add(cls.__name__)
        if autograd:
            AUTOGRAD.add(cls.__name__)
        return cls

    return register if build is None else register(build)


def make(name):
    torch.manual_seed(0)
    return MODELS[name]().double()


def pool(count=3):
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.head = nn.Linear(4, 4), nn.Linear(4, 3)


def linked(model):
    """`.double()` keeps Parameter objects but not their memory: what a model keeps of it is made after."""
    model.double()
    return model


# --- A2: reached past attributes -----------------------------------------------------------------------


@case
class TiedInAList(Base):
    def __init__(self):
        super().__init__()
        self.tied = [self.enc.weight]

    def forward(self, x):
        return self.head(F.linear(self.enc(x).tanh(), self.tied[0].t()))


@case
class ListOfParameters(Base):
    def __init__(self):
        super().__init__()
        self.ps = nn.ParameterList([nn.Parameter(torch.randn(4)) for _ in range(2)])
        self.flat = list(self.ps)

    def forward(self, x):
        return self.head((self.enc(x) * self.flat[0] + self.flat[1]).tanh())


@case
class Closure(Base):
    def __init__(self):
        super().__init__()
        weight = self.enc.weight
        self.again = lambda x: x @ weight.t()

    def forward(self, x):
        return self.head(self.again(self.enc(x).tanh()))


@case
class InADict(Base):
    def __init__(self):
        super().__init__()
        self.kept = {"w": (self.enc.weight, [self.enc.bias])}

    def forward(self, x):
        w, (b,) = self.kept["w"]
        return self.head(torch.addmm(b, self.enc(x).tanh(), w))


@case
class Partial(Base):
    def __init__(self):
        super().__init__()
        self.again = partial(F.linear, weight=self.enc.weight)

    def forward(self, x):
        return self.head(self.again(self.enc(x).tanh()))


class Holder:
    def __init__(self, weight):
        self.weight = weight


@case
class PlainObject(Base):
    def __init__(self):
        super().__init__()
        self.holder = Holder(self.enc.weight)

    def forward(self, x):
        return self.head(
            self.enc(x).tanh() @ self.holder.weight + torch.cat([self.holder.weight[0], self.holder.weight[1]])[:4]
        )


@case
class BoundMethod(Base):
    def __init__(self):
        super().__init__()
        self.scaled = self.enc.weight.mul

    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.scaled(2.0))


class Memory(Base):
    """Keeps what a subclass's `kept` gives: a tensor that shares the memory of a parameter that stays where it is."""

    def double(self):
        super().double()
        self.alias = self.kept()
        return self


@case(reference=True, autograd=True)
class KeptData(Memory):
    def kept(self):
        return [self.enc.weight.data]

    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.alias[0])


@case(reference=True, autograd=True)
class KeptDetached(Memory):
    def kept(self):
        return self.enc.weight.detach()

    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.alias)


@case(reference=True)
class KeptView(Memory):
    def kept(self):
        return [self.enc.weight.t(), self.enc.weight[:3]]

    def forward(self, x):
        return self.head(self.enc(x).tanh() @ self.alias[0]) + F.linear(x, self.alias[1])


@case(reference=True)
class ScriptedOnAListed(Base):
    def __init__(self):
        super().__init__()
        self.kept = [self.enc.weight]
        self.again = torch.jit.script(_twice)

    def forward(self, x):
        return self.head(self.again(self.enc(x).tanh(), self.kept[0]))


# --- A3: uses that a function mode does not see ----------------------------------------------------------


def _twice(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.matmul(x, w).tanh()


@case
class Scripted(Base):
    def __init__(self):
        super().__init__()
        self.again = torch.jit.script(_twice)

    def forward(self, x):
        return self.head(self.again(self.enc(x).tanh(), self.enc.weight))


@case
class Traced(Base):
    def __init__(self):
        super().__init__()
        self.again = torch.jit.trace(_twice, (torch.zeros(2, 4).double(), torch.zeros(4, 4).double()))

    def forward(self, x):
        return self.head(self.again(self.enc(x).tanh(), self.enc.weight))


class Sub(torch.Tensor):
    pass


@case
class AsSubclass(Base):
    def forward(self, x):
        y = self.enc(x).tanh() @ self.enc.weight.as_subclass(Sub)
        return self.head(y.as_subclass(torch.Tensor))


@case(autograd=True)
class ParameterOfAParameter(Base):
    def forward(self, x):
        return self.head(self.enc(x).tanh() @ nn.Parameter(self.enc.weight))


@case(autograd=True)
class Copied(Base):
    def forward(self, x):
        return self.head(self.enc(x).tanh() @ copy.copy(self.enc.weight))


@case
class OpsByName(Base):
    def forward(self, x):
        return self.head(torch.ops.aten.mm(self.enc(x).tanh(), self.enc.weight))


@case
class ThroughAView(Base):
    def forward(self, x):
        return self.head(F.linear(self.enc(x).tanh(), self.enc.weight.mT)) + F.linear(self.enc.weight[:1], self.head.weight)


class Times(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, w):
        return x @ w

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w.mT, x.mT @ g


@case
class OwnFunction(Base):
    def forward(self, x):
        return self.head(Times.apply(self.enc(x).tanh(), self.enc.weight))


@case
class Checkpointed(Base):
    def forward(self, x):
        return self.head(torch.utils.checkpoint.checkpoint(_twice, self.enc(x).tanh(), self.enc.weight, use_reentrant=False))


# --- A4: computed once and kept --------------------------------------------------------------------------


class Biased(Base):
    def __init__(self):
        super().__init__()
        self.biases = nn.Parameter(torch.randn(2))
        self.idx = torch.tensor([0, 1, 1, 0])


@case
class CacheByDevice(Biased):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def bias(self, x):
        if self.training:
            return self.biases[self.idx]
        key = str(x.device)
        if key not in self.cache:
            self.cache[key] = self.biases[self.idx]
        return self.cache[key]

    def forward(self, x):
        return self.head((self.enc(x) + self.bias(x)).tanh())


@case
class CacheWithoutAsking(Biased):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        if "b" not in self.cache:
            self.cache["b"] = self.biases[self.idx]
        return self.head((self.enc(x) + self.cache["b"]).tanh())


@case
class KeptAttribute(Biased):
    ab = None

    def forward(self, x):
        if self.ab is None:
            self.ab = self.biases[self.idx] * 2
        return self.head((self.enc(x) + self.ab).tanh())


@case
class MadeByEval(Biased):
    @torch.no_grad()
    def train(self, mode=True):
        super().train(mode)
        if mode and hasattr(self, "ab"):
            del self.ab
        else:
            self.ab = self.biases[self.idx]
        return self

    def refresh(self):
        self.eval()

    def forward(self, x):
        return self.head((self.enc(x) + (self.biases[self.idx] if self.training else self.ab)).tanh())


@case
class BufferMadeByEval(MadeByEval):
    def train(self, mode=True):
        Biased.train(self, mode)
        if mode and hasattr(self, "ab"):
            del self.ab
        else:
            self.register_buffer("ab", self.biases[self.idx].detach(), persistent=False)
        return self


@case
class InAChild(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = CacheByDevice(), MadeByEval()
        self.drop = nn.Dropout(0.5)

    def refresh(self):
        self.b.refresh()

    def forward(self, x):
        return self.drop(self.a(x)) + self.b(x)


# --- A5: what a pass changes ------------------------------------------------------------------------------


@case(reference=True)
class Counts(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return self.head(self.enc(x).tanh() * self.seen)


@case(reference=True, autograd=True)
class MovingAverage(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        y = self.enc(x)
        self.mean.mul_(0.5).add_(y.detach().mean(0), alpha=0.5)
        return self.head((y - self.mean).tanh())


@case
class Appends(Base):
    def __init__(self):
        super().__init__()
        self.past = []

    def forward(self, x):
        self.past.append(self.enc(x))
        return self.head(sum(self.past).tanh())


@case
class AsksForGradMode(Base):
    def forward(self, x):
        y = self.enc(x)
        return self.head(y.tanh() if torch.is_grad_enabled() else y)


BY_TWO_RULES = ("Closure", "KeptDetached", "Scripted", "OwnFunction", "MadeByEval", "Appends")  # quickly; one of each kind
TRUE = [
    pytest.param(
        name,
        rule,
        engines,
        marks=()
        if "reference" in engines and (not rule or ("adaptive" in rule and name in BY_TWO_RULES))
        else pytest.mark.slow,
    )
    for rule in ({}, {"norm": 3.0}, {"adaptive": True})
    for name in MODELS
    for engines in (("auto", "reference"), ("ghost", "vmap"))
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


# --- A5: two passes, one function -----------------------------------------------------------------------------


class Encoder(nn.Module):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, dropout=0.1)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, **options), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(x, src_key_padding_mask=x[..., 0] > 0.7).mean(1))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_encoder_with_a_padding_mask(engine, frozen):
    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(2))
    chosen = {"params": lambda name: name.startswith("head")} if frozen else {}
    scores = saal_fast.score(Encoder(), x, 1e-9, details=True, engine=engine, **chosen)
    torch.testing.assert_close(scores.perturbed_loss, scores.loss, rtol=0, atol=1e-5)
    plain = saal_fast.score(Encoder(enable_nested_tensor=False), x, 1e-9, details=True, engine="reference", **chosen)
    torch.testing.assert_close(scores.loss, plain.loss, rtol=0, atol=1e-5)


def dropout(model, y):
    return F.dropout(y, 0.5, training=True)


def noise(model, y):
    return y + torch.randn_like(y)


def own_generator(model, y):
    return y + torch.randn(y.shape, generator=model.generator, dtype=y.dtype)


def python(model, y):
    return y * random.random()


def numpy(model, y):
    return y + torch.from_numpy(np.random.randn(4))


def numpy_generator(model, y):
    return y + torch.from_numpy(model.rng.standard_normal(4))


def bernoulli(model, y):
    return y * torch.bernoulli(torch.full_like(y, 0.5))


def gumbel(model, y):
    return F.gumbel_softmax(y)


def depth(model, y):
    return y if random.random() < 0.5 else -y


def in_a_list(model, y):
    return y + torch.randn(y.shape, generator=model.held[0]["torch"], dtype=y.dtype)


def in_a_mapping(model, y):
    return y + torch.from_numpy(model.held[0]["numpy"][0].standard_normal(4))


def in_an_object(model, y):
    return y * model.box.rng.random()


def of_raw_bits(model, y):
    return y * (model.bits.random_raw() / 2**64)


class Random(Base):
    def __init__(self, draw):
        super().__init__()
        torch.manual_seed(0)
        for p in self.parameters():
            nn.init.normal_(p)
        self.draw, self.generator, self.rng = draw, torch.Generator().manual_seed(3), np.random.default_rng(3)
        self.held = [{"torch": torch.Generator().manual_seed(4), "numpy": (np.random.default_rng(4),)}]
        self.box, self.bits = SimpleNamespace(rng=random.Random(5)), np.random.PCG64(6)

    def forward(self, x):
        return self.head(self.draw(self, self.enc(x).tanh()))


DRAWS = (dropout, noise, own_generator, python, numpy, numpy_generator, bernoulli, gumbel, depth)
DRAWS += (in_a_list, in_a_mapping, in_an_object, of_raw_bits)


@pytest.mark.parametrize("draw", DRAWS, ids=lambda f: f.__name__)
def test_draws_are_the_same_in_both_passes_and_differ_between_samples(draw, caplog):
    x = torch.randn(1, 4, dtype=torch.float64).expand(12, 4)
    model, chosen = Random(draw).double(), {"details": True}
    for engine in ("auto", "reference"):
        scores = saal_fast.score(model, x, 1e-9, engine=engine, **chosen)
        torch.testing.assert_close(scores.perturbed_loss, scores.loss, rtol=0, atol=1e-7)
        assert len(scores.loss.unique()) >= 2
        steep = saal_fast.score(model, x, 1e-6, engine=engine, **chosen)
        torch.testing.assert_close(steep.by("diff") / 1e-6, steep.grad_norm, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(steep.loss, scores.loss)  # generators came back as they were
    assert scores.engine == "reference"
    for engine in ("ghost", "vmap"):
        with pytest.raises(saal_fast.EngineError, match="random"):
            saal_fast.score(model, x, 1e-9, details=True, engine=engine)


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


# --- A6: ambient autocast ----------------------------------------------------------------------------------------


def scores_under_autocast(call):
    plain = call()
    with torch.autocast("cpu", torch.bfloat16):
        ambient = call()
        with torch.autocast("cpu", torch.float16):
            nested = call()
        assert torch.is_autocast_enabled("cpu")
    return plain, ambient, nested


@pytest.mark.parametrize("precision", [None, "bf16"])
@pytest.mark.parametrize("engine", ENGINES)
def test_ambient_autocast_changes_nothing(engine, precision):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(5, 4)
    for options in ({}, {"norm": 3.0}, {"adaptive": True}, {"embeddings": True}):
        found = scores_under_autocast(
            lambda options=options: saal_fast.score(model, x, engine=engine, precision=precision, details=True, **options)
        )
        for other in found[1:]:
            for name in ("loss", "grad_norm", "perturbed_loss"):
                assert torch.equal(getattr(other, name), getattr(found[0], name))


def test_ambient_autocast_changes_no_feature():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(5, 4)
    for call in (partial(logits, model, x), lambda: penultimate(model, x).features, lambda: penultimate(model, x).logits):
        found = scores_under_autocast(call)
        assert all(torch.equal(other, found[0]) for other in found[1:])


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
