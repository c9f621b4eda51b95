"""Bad input: each error names what was expected and what came."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from saal_fast import Classification, EngineError, NonFiniteError, score
from saal_fast.scoring import ScoreOptions

ENGINES = ["auto", "ghost", "vmap", "reference"]


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def inputs(n=7):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1))


class Flow(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


# --- arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rho": -0.1}, ValueError, "expected a finite rho >= 0, got rho=-0.1"),
        ({"rho": math.nan}, ValueError, "expected a finite rho >= 0, got rho=nan"),
        ({"rho": math.inf}, ValueError, "expected a finite rho >= 0, got rho=inf"),
        ({"rho": "0.05"}, TypeError, r"expected rho to be a number, got '0.05' \(str\)"),
        ({"rho": None}, TypeError, r"expected rho to be a number, got None \(NoneType\)"),
        ({"norm": 1}, ValueError, r"expected norm .* in \(1, inf\], got norm=1"),
        ({"norm": 0.5}, ValueError, r"expected norm .* in \(1, inf\], got norm=0.5"),
        ({"norm": math.nan}, ValueError, r"expected norm .* in \(1, inf\], got norm=nan"),
        ({"norm": "2"}, TypeError, "expected norm to be a number, got '2'"),
        ({"norm": 3, "adaptive": True}, ValueError, "adaptive=True is defined for norm=2 only, got norm=3"),
        ({"objective": "min"}, ValueError, "expected objective to be one of 'max', 'diff'; got 'min'"),
        ({"objective": None}, ValueError, "expected objective to be one of 'max', 'diff'; got None"),
        ({"engine": "gost"}, ValueError, "expected engine to be one of 'auto', 'ghost', 'vmap', 'reference'; got 'gost'"),
        ({"engine": None}, ValueError, "expected engine to be one of .*; got None"),
        ({"on_nonfinite": "ignore"}, ValueError, "expected on_nonfinite to be one of 'raise', 'keep'; got 'ignore'"),
        ({"batch_size": 0}, ValueError, 'expected batch_size to be "auto" or a whole number >= 1, got 0'),
        ({"batch_size": -3}, ValueError, "expected batch_size .*, got -3"),
        ({"batch_size": 2.0}, ValueError, "expected batch_size .*, got 2.0"),
        ({"batch_size": True}, ValueError, "expected batch_size .*, got True"),
        ({"batch_size": None}, ValueError, "expected batch_size .*, got None"),
        ({"batch_size": "all"}, ValueError, "expected batch_size .*, got 'all'"),
        ({"params": ["0.weight"]}, TypeError, "expected params to be a function of a parameter's name, or None; got list"),
        ({"params": "0.weight"}, TypeError, "expected params .*; got str"),
        ({"task": nn.CrossEntropyLoss()}, TypeError, "expected task .* pseudo_label and loss, got CrossEntropyLoss"),
        ({"task": Classification}, TypeError, "expected task .*, got the class Classification itself"),
        ({"device": "gpu"}, ValueError, "expected device to be None, a torch.device or its name, .*; got 'gpu'"),
        ({"device": "cuda:x"}, ValueError, "expected device to be .*; got 'cuda:x'"),
        ({"device": ""}, ValueError, "expected device to be .*; got ''"),
        ({"device": -1}, ValueError, "expected device to be .*; got -1"),
        ({"device": 10**30}, ValueError, f"expected device to be .*; got {10**30}"),
        ({"device": 3.5}, TypeError, r"expected device to be .*; got 3.5 \(float\)"),
        ({"device": True}, TypeError, r"expected device to be .*; got True \(bool\)"),
        ({"adaptive": "no"}, TypeError, "expected adaptive to be True or False, got 'no'"),
        ({"embeddings": 1}, TypeError, "expected embeddings to be True or False, got 1"),
        ({"progress": "x"}, TypeError, "expected progress to be True or False, got 'x'"),
        ({"details": "no"}, TypeError, "expected details to be True or False, got 'no'"),
        ({"batch_size": np.array([2, 3])}, ValueError, "expected batch_size .*, got array"),
        ({"temperature": 1}, TypeError, "expected options of saal_fast.score, among adaptive, .*; got temperature"),
    ],
    ids=str,
)
@pytest.mark.parametrize("n", [0, 7])
def test_arguments(options, error, message, n):
    with pytest.raises(error, match=message):
        score(mlp(), inputs(n), **options)


@pytest.mark.parametrize("model", [None, "resnet18", F.relu, nn.Linear, mlp().state_dict()], ids=lambda m: type(m).__name__)
def test_a_model_that_is_no_module(model):
    with pytest.raises(TypeError, match=rf"expected model to be an eager torch.nn.Module, got {type(model).__name__}"):
        score(model, inputs())


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_script_module():
    for scripted in (torch.jit.script(mlp()), torch.jit.trace(mlp(), inputs())):
        with pytest.raises(TypeError, match=r"expected model to be an eager torch.nn.Module, got \w+Module"):
            score(scripted, inputs())


def test_nothing_to_perturb():
    with pytest.raises(
        ValueError, match=r"expected a model with trainable parameters, got Sequential with none .*requires_grad_"
    ):
        score(mlp().requires_grad_(False), inputs())
    with pytest.raises(ValueError, match="expected a model with trainable parameters, got ReLU with none"):
        score(nn.ReLU(), inputs())
    with pytest.raises(ValueError, match=r"params= to accept at least one of the 4 trainable .*begin: 0.weight, 0.bias, 2"):
        score(mlp(), inputs(), params=lambda name: name.startswith("head"))


def test_a_lazy_model():
    with pytest.raises(ValueError, match=r"0\.weight of the model is lazy; run the model once first"):
        score(nn.Sequential(nn.LazyLinear(3)), inputs())


# --- pools ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "error", "message"),
    [
        (None, TypeError, "expected a pool .*; got NoneType"),
        (3, TypeError, "expected a pool .*; got int"),
        ("images/", TypeError, "expected a pool .*; got str"),
        (iter(inputs()), TypeError, "got .*; an iterator would be used up by scoring"),
        (torch.tensor(1.0), ValueError, r"expected inputs that share their first dimension; the pool is \[\] float32"),
        ([inputs()[0], inputs()[1, :3]], ValueError, r"sample 0 of the pool is \[4\] .*, sample 1 of the pool is \[3\]"),
        ([inputs()[0], "cat.png"], TypeError, "sample 1 of the pool is str; expected a dense tensor"),
        ({"x": inputs(7), "y_": inputs(6)}, ValueError, r"share their first dimension; .*x: \[7, 4\].*y_: \[6, 4\]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pools(pool, error, message):
    with pytest.raises(error, match=message):
        score(mlp(), pool, batch_size=1)


# --- labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0] * 6, ValueError, "expected labels for the pool's 7 samples, got 6"),
        ([0] * 8, ValueError, "expected labels for the pool's 7 samples, got 8"),
        ([], ValueError, "expected labels for the pool's 7 samples, got 0"),
        (1, ValueError, "expected labels for the pool's 7 samples, got one number"),
        ([0, 1, 2, 3, 0, -1, 0], ValueError, r"labels in \[0, 3\).*got 2 outside: labels\[3\] = 3, labels\[5\] = -1"),
        ([0.0] * 7, TypeError, r"expected labels as integers of shape \[N\], got torch.float32 \[7\]"),
        (np.zeros((7, 3)), TypeError, r"expected labels as integers of shape \[N\], got torch.float64 \[7, 3\]"),
        (torch.zeros(7, dtype=torch.bool), TypeError, "expected labels as integers .*, got torch.bool"),
        (["cat"] * 7, TypeError, "expected labels as a tensor or an array of numbers, got 'cat'"),
        ({"class": torch.zeros(7, dtype=torch.int64)}, TypeError, "expected labels as integers .*, got dict"),
    ],
    ids=str,
)
@pytest.mark.parametrize("engine", ENGINES)
def test_labels(labels, error, message, engine):
    with pytest.raises(error, match=message):
        score(mlp(), inputs(), labels=labels, engine=engine)


@pytest.mark.parametrize("pool", [Flow, lambda x: DataLoader(Flow(x), batch_size=3)])
def test_labels_of_another_length_than_a_pool_that_does_not_know_its_own(pool):
    for labels in ([0] * 8, [0] * 100):
        with pytest.raises(ValueError, match=f"expected labels for the pool's 7 samples, got {len(labels)}"):
            score(mlp(), pool(inputs()), labels=labels, batch_size=2)
    with pytest.raises(ValueError, match=r"expected labels for all of the pool's samples, got \[5\] for 6 or more"):
        score(mlp(), pool(inputs()), labels=[0] * 5, batch_size=2)
    with pytest.raises((TypeError, ValueError), match="expected labels"):
        score(mlp(), pool(inputs()), labels=0, batch_size=2)
    with pytest.raises(ValueError, match="expected labels for the pool's 0 samples, got 3"):
        score(mlp(), pool(inputs(0)), labels=[0] * 3)


# --- outputs and losses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (nn.Linear(8, 1), r"expected logits \[B, C\] with C >= 2 classes, got torch.float32 \[1, 1\]"),
        (nn.Unflatten(1, (2, 2, 2)), r"expected logits \[B, C\] with C >= 2 classes, got torch.float32 \[1, 2, 2, 2\]"),
        (nn.Flatten(0), r"expected logits \[B, C\] with C >= 2 classes, got torch.float32 \[8\]"),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_outputs_that_are_no_logits(last, message, engine):
    with pytest.raises(ValueError, match=message):
        score(nn.Sequential(nn.Linear(4, 8), last), inputs(), engine=engine)


@pytest.mark.parametrize(
    ("loss", "got"),
    [
        (F.cross_entropy, r"torch.float32 \[\]"),
        (lambda z, y: F.cross_entropy(z, y, reduction="none")[:, None], r"torch.float32 \[1, 1\]"),
        (lambda z, y: z, r"torch.float32 \[1, 3\]"),
        (lambda z, y: y, r"torch.int64 \[1\]"),
        (lambda z, y: 0.5, "float"),
        (lambda z, y: None, "NoneType"),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_loss_that_is_not_one_number_a_sample(loss, got, engine):
    class Mine(Classification):
        def loss(self, output, label):
            return loss(output, label)

    with pytest.raises(ValueError, match=rf'expected Mine.loss to give one number a sample, .*got {got} .*reduction="none"'):
        score(mlp(), inputs(), task=Mine(), engine=engine)


def spoiled(n=70, *which):
    x = inputs(n)
    for i, value in which:
        x[i, 0] = value
    return x


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_samples_are_named(engine, value):
    model = nn.Linear(4, 3)
    x = spoiled(12, (5, value), (8, value))
    with pytest.raises(NonFiniteError, match=r"got NaN or inf for 1 of samples 4 to 7 of the pool: 5\. on_nonfinite="):
        score(model, x, engine=engine, batch_size=4)
    with pytest.raises(NonFiniteError, match=r"got NaN or inf for 2 of samples 0 to 11 of the pool: 5, 8\. "):
        score(model, x, engine=engine, batch_size=12)
    with pytest.raises(NonFiniteError, match=r"for 9 of samples 0 to 8 of the pool: 0, 1, 2, 3, 4, \.\.\.\. "):
        score(model, torch.full((9, 4), value), engine=engine)
    assert issubclass(NonFiniteError, ValueError)


@pytest.mark.parametrize("engine", ENGINES)
def test_non_finite_samples_may_be_kept(engine):
    x = spoiled(12, (5, math.nan), (8, math.inf))
    model = nn.Linear(4, 3)
    details = score(model, x, engine=engine, on_nonfinite="keep", details=True, batch_size=4)
    clean = torch.ones(12, dtype=torch.bool)
    clean[[5, 8]] = False
    assert torch.equal(details.finite, clean)
    assert not details.perturbed_loss[~clean].isfinite().any()
    torch.testing.assert_close(details.perturbed_loss[clean], score(model, x[clean], engine=engine))


class Certain(nn.Module):
    """Infinitely sure of samples that begin with a large number: a loss of 0 from logits that are no numbers."""

    def __init__(self):
        super().__init__()
        self.body = mlp()

    def forward(self, x):
        return torch.where(x[:, :1] > 50, torch.tensor([math.inf, 0.0, 0.0]), self.body(x))


@pytest.mark.parametrize("engine", ENGINES)
def test_infinite_logits_with_a_finite_loss(engine):
    x = spoiled(12, (5, 99.0))
    with pytest.raises(NonFiniteError, match="for 1 of samples 0 to 11 of the pool: 5"):
        score(Certain(), x, engine=engine)
    details = score(Certain(), x, engine=engine, on_nonfinite="keep", details=True)
    assert (~details.finite).nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_whose_norm_overflows(engine):
    class Steep:
        def pseudo_label(self, output):
            return output.argmax(1)

        def loss(self, output, label):
            return 1e30 * output.sum(1)

    with pytest.raises(NonFiniteError):
        score(mlp(), inputs(), task=Steep(), engine=engine)


# --- the model's own errors -------------------------------------------------------------------------


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, ids):
        if ids.shape[1] > 6:
            raise ValueError(f"text of {ids.shape[1]} tokens, at most 6")
        return self.head(self.words(ids).mean(1))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("where", [0, 4, 9])
@pytest.mark.parametrize("size", ["auto", 2])
def test_an_error_by_one_sample_is_raised_as_itself(engine, where, size, caplog):
    ids = torch.randint(5, (10, 3))
    ids[where, 1] = 99
    with pytest.raises(IndexError) as own:
        Bag()(ids)
    with pytest.raises(IndexError, match=re.escape(str(own.value))):
        score(Bag(), ids, engine=engine, batch_size=size)
    assert not caplog.records  # nor is it taken for a reason to fall back


@pytest.mark.parametrize("engine", ENGINES)
def test_an_error_by_a_batch_is_raised_as_itself(engine, caplog):
    loader = DataLoader([torch.zeros(3, n, dtype=torch.int64) for n in (2, 6, 7)], batch_size=None)
    with pytest.raises(ValueError, match="text of 7 tokens, at most 6"):
        score(Bag(), loader, engine=engine)
    assert not caplog.records


@pytest.mark.parametrize("engine", ENGINES)
def test_an_error_by_the_inputs_is_raised_as_itself(engine):
    with pytest.raises(RuntimeError) as own:
        mlp()(inputs()[:1, :3])
    with pytest.raises(RuntimeError, match=re.escape(str(own.value))) as error:
        score(mlp(), inputs()[:, :3], engine=engine)
    assert not isinstance(error.value, EngineError)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'pixels'"):
        score(mlp(), {"pixels": inputs()}, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_error_by_the_task_is_raised_as_itself(engine):
    class Mine(Classification):
        def loss(self, output, label):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        score(mlp(), inputs(), task=Mine(), engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_labels_that_only_the_loss_finds_wrong(engine):
    class Unchecked:
        def pseudo_label(self, output):
            return output.argmax(1)

        def loss(self, output, label):
            return F.cross_entropy(output, label, reduction="none")

    with pytest.raises(IndexError) as own:
        F.cross_entropy(torch.zeros(1, 3), torch.tensor([7]))
    with pytest.raises(IndexError, match=re.escape(str(own.value))):
        score(mlp(), inputs(), task=Unchecked(), labels=[0, 1, 2, 0, 1, 7, 0], engine=engine, batch_size=3)


@pytest.mark.parametrize("engine", ENGINES)
def test_want_of_memory_is_neither_a_fallback_nor_an_engine_error(engine, caplog):
    calls = itertools.count(1)

    class Hungry(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            if next(calls) > 9:
                torch.empty(10**17)
            return self.body(x)

    with pytest.raises(RuntimeError, match="allocate") as error:
        score(Hungry(), inputs(20), engine=engine, batch_size=1)  # larger batches are halved
    assert not isinstance(error.value, EngineError)
    assert not caplog.records


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_a_pool_of_another_type_than_the_model(dtype, engine):
    with pytest.raises(
        TypeError, match=r"a pool of the model's type, torch.float32, got torch.(float64|int64): .* same dtype"
    ):
        score(mlp(), inputs().to(dtype), engine=engine)


def test_a_device_without_values_is_refused():
    with pytest.raises(ValueError, match="expected device to be one that computes, got meta"):
        score(nn.Linear(2, 2), torch.zeros(1, 2), device="meta")


def test_options_know_a_device_that_there_is_not_before_a_model_is_there():
    with pytest.raises(ValueError, match=r"expected device to be .*; got 'nonsense'"):
        ScoreOptions(device="nonsense")
    for device in (None, "cpu", torch.device("cpu"), "cuda:7", 0):
        assert ScoreOptions(device=device).device == device
