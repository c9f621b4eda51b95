"""Functions with a backward pass of their own: each engine gives what that pass gives, held to plain autograd."""

import functools
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function
from torch.autograd.function import FunctionMeta, InplaceFunction, once_differentiable

import saal_fast
from saal_fast.engines.capture.captured_engine import CapturedEngine
from saal_fast.engines.capture.cpu_trace import cpu_trace
from saal_fast.tasks import Classification
from tests.scored import scored
from tests.truth import assert_true, truth_of

ENGINES = ("auto", "ghost", "vmap", "reference")
FUNCTIONS = {}


def case(used):
    """Registers a function h, weight → h', both [n, 4]; the weight is [4, 4]."""
    FUNCTIONS[used.__name__] = used
    return used


class Net(nn.Module):
    def __init__(self, used):
        super().__init__()
        self.enc, self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 3)
        self.used = used

    def forward(self, x):
        h = self.used(self.enc(x), self.mix.weight)
        return self.head(h.tanh() + 0.1 * self.mix(x))


def make(name):
    torch.manual_seed(0)
    return Net(FUNCTIONS[name]).double()


def pool(count=4):
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# --- backward passes that are no derivative ------------------------------------------------------------


class Round(Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


@case
def straight_through(h, weight):
    return Round.apply(3 * h)


class Reverse(Function):
    @staticmethod
    def forward(ctx, x, alpha=2.0):
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -ctx.alpha * grad


kept_apply = Reverse.apply


@case
def kept_bound_method_with_a_default(h, weight):
    return kept_apply(h)


class Clamped(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad.clamp(-0.05, 0.1) * (x > 0)


@case
def clamped_gradient_once_differentiable(h, weight):
    return Clamped.apply(h)


# --- contexts --------------------------------------------------------------------------------------------


class Everything(Function):
    """Saved inputs, outputs and what lies between; attributes; outputs without a gradient, of another type, unused."""

    @staticmethod
    def forward(ctx, x, power, name):
        assert name == "a name"
        between = x.exp()
        out, positive, unused = between**power, x > 0, x * 2
        ctx.save_for_backward(x, between, out)
        ctx.power, ctx.mask = power, positive
        ctx.mark_non_differentiable(positive)
        ctx.set_materialize_grads(False)
        return out, positive, unused

    @staticmethod
    def backward(ctx, grad, of_positive, of_unused):
        assert of_positive is None and of_unused is None  # noqa: PT018
        assert ctx.needs_input_grad == (True, False, False)
        x, between, out = ctx.saved_tensors
        return grad * 1.5 * ctx.power * out * torch.where(ctx.mask, 1.0, 0.3) * (between / x.exp()), None, None


@case
def context_of_every_kind(h, weight):
    out, positive, _ = Everything.apply(h, 2, "a name")
    return torch.where(positive, out, -out)


class InPlace(InplaceFunction):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, grad):
        return grad * 3


@case
def in_place(h, weight):
    return InPlace.apply(h + 1)


@case
def in_place_on_a_layers_output(h, weight):
    InPlace.apply(h)
    return h


class Product(Function):
    """A layer of one's own, its weight an argument."""

    @staticmethod
    def forward(ctx, x, weight, bias=None):
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        by_x = grad @ weight if ctx.needs_input_grad[0] else None
        by_weight = 0.5 * grad.t() @ x if ctx.needs_input_grad[1] else None
        return by_x, by_weight


@case
def weight_as_an_argument(h, weight):
    return Product.apply(h, weight)


@case
def only_the_weight_needs_a_gradient(h, weight):
    return h + Product.apply(h.detach(), weight)


class Sum(Function):
    @staticmethod
    def forward(ctx, *parts):
        ctx.count = len(parts)
        return sum(parts)

    @staticmethod
    def backward(ctx, grad):
        return (grad * 0.7,) * ctx.count


@case
def any_number_of_arguments(h, weight):
    return Sum.apply(h, h * 2, torch.ones(4, dtype=h.dtype), weight[:1])


class Outer(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return Round.apply(x) + x.sin()

    @staticmethod
    def backward(ctx, grad):
        return Reverse.apply(grad) * ctx.saved_tensors[0].cos()


@case
def functions_inside_functions(h, weight):
    return Outer.apply(h)


class Child(Reverse):
    @staticmethod
    def forward(ctx, x):
        return Reverse.forward(ctx, x, 0.5) * 1.0


@case
def inherited(h, weight):
    return Child.apply(h)


@case
def class_made_in_the_pass(h, weight):
    class Made(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 5

    return Made.apply(h)


@case
def without_gradients(h, weight):
    with torch.no_grad():
        noise = Product.apply(h, weight)
    return h + noise


# --- of the new form, without a rule for vmap -------------------------------------------------------


class Apart(Function):
    @staticmethod
    def forward(x, scale):
        return x * scale

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output)
        ctx.scale = inputs[1]

    @staticmethod
    def backward(ctx, grad):
        x, out = ctx.saved_tensors
        return grad * ctx.scale * 0.5 + 0.01 * x * out, None


@case
def setup_context_without_a_rule(h, weight):
    return Apart.apply(h, 1.5)


class Ruled(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight):
        return F.linear(x, weight)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight, 2 * grad.mT @ x


@case
def weight_as_an_argument_with_a_rule(h, weight):
    return Ruled.apply(h, weight)


# --- what vmap cannot run ------------------------------------------------------------------------------


class ByNumpy(Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.from_numpy(np.tanh(x.detach().numpy()))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return torch.from_numpy(grad.numpy() * (1 - y.numpy() ** 2)) * 0.9


@case
def by_numpy(h, weight):
    return ByNumpy.apply(h)


class BackwardByNumpy(Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x.sinh(), x.cosh()

    @staticmethod
    def backward(ctx, first, second):
        x = ctx.saved_tensors[0].numpy()
        return torch.from_numpy(ctx.factor * (first.numpy() * np.cosh(x) + second.numpy() * np.sinh(x))), None


@case
def backward_by_numpy(h, weight):
    first, second = BackwardByNumpy.apply(h, 0.5)
    return first - second * 0.3


@case
def class_made_in_the_pass_by_numpy(h, weight):
    class Made(ByNumpy):
        pass

    return Made.apply(h)


class ByValue(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.up = x.sum().item() > 0
        return x * 2 if ctx.up else x * 3

    @staticmethod
    def backward(ctx, grad):
        return grad if ctx.up else grad * float(grad.norm())


@case
def by_value(h, weight):
    return ByValue.apply(h)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_what_its_own_backward_pass_gives(name, engine):
    truth = truth_of(functools.partial(make, name), pool(), differences=False)
    scores = saal_fast.score(make(name), pool(), details=True, engine=engine)
    assert scores.engine == ("ghost" if engine == "auto" else engine), scores.fallback
    assert_true(scores, truth, rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["straight_through", "context_of_every_kind", "weight_as_an_argument", "by_value", "by_numpy"]
)
def test_captured_batches_are_the_same(name):
    engines = []

    def capture(engine, device):
        engines.append(CapturedEngine(engine, cpu_trace, 2))
        return engines[-1]

    want = saal_fast.score(make(name), pool(20), details=True, engine="reference")
    got = scored(make(name), pool(20), batch_size=4, engine="ghost", capture=capture, check=False)
    assert_true(got, want, rtol=1e-9)
    (engine,) = engines
    assert bool(engine.replays) == (name not in ("by_value", "by_numpy")), engine.refused  # values have no place in a trace


def test_a_function_that_diverges_does_not_split_the_batch(monkeypatch):
    sizes = []
    real = saal_fast.engines.vmap.vmap
    monkeypatch.setattr(saal_fast.engines.vmap, "vmap", lambda *a, **k: sizes.append(1) or real(*a, **k))
    saal_fast.score(make("by_value"), pool(6), engine="vmap", check=False)
    assert len(sizes) <= 2  # the second time after the first has met it


@pytest.mark.parametrize("engine", ENGINES)
def test_the_functions_own_error_is_raised(engine):
    class Fails(Function):
        @staticmethod
        def forward(ctx, x):
            raise ZeroDivisionError("of the function's own")

        @staticmethod
        def backward(ctx, grad):
            return grad

    torch.manual_seed(0)
    with pytest.raises(ZeroDivisionError, match="of the function's own"):
        saal_fast.score(Net(lambda h, weight: Fails.apply(h)).double(), pool(), engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_function_in_the_loss_of_a_task(engine):
    class Clamping(Classification):
        def loss(self, output, label):
            return super().loss(Clamped.apply(output), label)

    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    model = net()
    output = model(pool())
    label = output.argmax(1)
    norms = []
    for i in range(len(label)):
        model.zero_grad()
        F.cross_entropy(Clamped.apply(model(pool()[i : i + 1])), label[i : i + 1]).backward()
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm())
    scores = saal_fast.score(net(), pool(), details=True, engine=engine, task=Clamping())
    torch.testing.assert_close(scores.grad_norm, torch.stack(norms), rtol=1e-9, atol=0)


def test_torch_is_left_as_it_was():
    before = dict(vars(FunctionMeta)), torch.autograd.function.custom_function_call, dict(vars(Round))
    saal_fast.score(make("straight_through"), pool())
    assert (dict(vars(FunctionMeta)), torch.autograd.function.custom_function_call, dict(vars(Round))) == before


def test_other_threads_train_meanwhile_as_ever():
    """Another thread's forward and backward passes through the same classes, while one scores."""
    done, wrong = threading.Event(), []

    def train():
        x = torch.randn(4, 4, dtype=torch.float64)
        while not done.is_set():
            leaf = x.clone().requires_grad_()
            out, _, _ = Everything.apply(leaf, 2, "a name")
            kept_apply(out).sum().backward()
            want = -2.0 * 1.5 * 2 * leaf.detach().exp() ** 2 * torch.where(leaf > 0, 1.0, 0.3)
            if not torch.allclose(leaf.grad, want):
                wrong.append(leaf.grad)
            Round.note = "set meanwhile"

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for name in ("context_of_every_kind", "kept_bound_method_with_a_default"):
            saal_fast.score(make(name), pool())
    finally:
        done.set()
        thread.join()
    assert not wrong


def test_a_class_may_be_changed_meanwhile():
    def used(h, weight):
        Round.backward = staticmethod(lambda ctx, grad: grad)
        Reverse.forward = Reverse.forward
        return Round.apply(h)

    torch.manual_seed(0)
    saal_fast.score(Net(used).double(), pool(2))
    assert Round.apply(torch.tensor(1.2)) == 1
