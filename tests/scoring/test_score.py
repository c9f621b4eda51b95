import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import saal_fast
from saal_fast import Scores, score
from saal_fast._utils.logs import forget_warnings
from saal_fast.scoring.runner import Runner

ENGINES = ["ghost", "vmap", "reference"]
FP64 = {"rtol": 1e-9, "atol": 1e-12}


def mlp(dtype=torch.float64, classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, classes)).to(dtype)


def inputs(n=7, dtype=torch.float64):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def by_hand(model, x, rho=0.05, labels=None):
    """Eq. 3 and Eq. 6 with p = 2, with nothing of the package."""
    scores = []
    for i in range(len(x)):
        moved = copy.deepcopy(model).eval()
        z = moved(x[i : i + 1])
        y = z.argmax(1) if labels is None else labels[i : i + 1]
        grads = torch.autograd.grad(F.cross_entropy(z, y), list(moved.parameters()))
        length = math.sqrt(sum(float((g**2).sum()) for g in grads))
        with torch.no_grad():
            for p, g in zip(moved.parameters(), grads, strict=True):
                p.add_(rho * g / length)
            scores.append(F.cross_entropy(moved(x[i : i + 1]), y))
    return torch.stack(scores)


# --- what comes back --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
@pytest.mark.parametrize("rho", [0.0, 0.05, 1.0])
def test_scores_are_the_papers(engine, rho):
    model, x = mlp(), inputs()
    torch.testing.assert_close(score(model, x, rho, engine=engine), by_hand(model, x, rho), **FP64)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
)
def test_one_number_a_sample_on_the_cpu(dtype, expected):
    scores = score(mlp(dtype), inputs(dtype=dtype))
    assert (scores.shape, scores.dtype, scores.device.type) == ((7,), expected, "cpu")
    assert not scores.requires_grad
    assert not scores.is_inference()


@pytest.mark.parametrize("engine", ENGINES)
def test_details(engine):
    model, x = mlp(), inputs()
    details = score(model, x, details=True, engine=engine)
    z = model(x)
    assert isinstance(details, Scores)
    assert len(details) == 7
    torch.testing.assert_close(details.perturbed_loss, score(model, x), **FP64)
    torch.testing.assert_close(details.loss, F.cross_entropy(z, z.argmax(1), reduction="none").detach(), **FP64)
    torch.testing.assert_close(details.sharpness, details.perturbed_loss - details.loss, **FP64)
    assert torch.equal(details.label, z.argmax(1))
    assert (details.perturbed_label.shape, details.perturbed_label.dtype) == ((7,), torch.int64)
    assert details.finite.all()
    assert (details.engine, details.fallback) == (engine, None)
    torch.testing.assert_close(details.sharpness / 0.05, details.grad_norm, rtol=0.2, atol=0)  # Theorem 3.3


def test_a_strong_push_changes_predictions():
    details = score(mlp(), inputs(), 5.0, details=True)
    assert (details.perturbed_label != details.label).any()


def test_the_objective_diff_is_the_sharpness():
    model, x = mlp(), inputs()
    assert torch.equal(score(model, x, objective="diff"), score(model, x, details=True).sharpness)
    assert torch.equal(score(model, x, objective="diff", details=True).by("diff"), score(model, x, objective="diff"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("margin", [25.0, 60.0])
def test_nearly_certain_samples_are_pushed_as_far_as_others(engine, margin):
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[margin, 0.0], [0.0, 0.0]]))
    x = torch.tensor([[1.0, 0.0]])
    details = score(model, x, 0.5, engine=engine, details=True)  # the margin shrinks by ρ‖x‖√2
    torch.testing.assert_close(details.perturbed_loss, torch.exp(torch.tensor([-margin + 0.5 * 2**0.5])), rtol=1e-4, atol=0)
    torch.testing.assert_close(details.grad_norm, 2**0.5 * details.loss, rtol=1e-4, atol=0)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 23), st.integers(1, 30), st.sampled_from(["auto", *ENGINES]))
def test_the_batch_size_does_not_matter(n, size, engine):
    model, x = mlp(), inputs(n)
    ours, whole = (score(model, x, engine=engine, batch_size=b, details=True) for b in (size, n))
    torch.testing.assert_close(ours.perturbed_loss, whole.perturbed_loss, **FP64)
    torch.testing.assert_close(ours.grad_norm, whole.grad_norm, **FP64)
    assert torch.equal(ours.label, whole.label)


def test_a_size_of_numpy():
    model, x = mlp(), inputs()
    torch.testing.assert_close(score(model, x, batch_size=np.int64(2)), score(model, x), **FP64)


def test_the_model_may_be_wrapped():
    model, x = mlp(), inputs()
    assert torch.equal(score(nn.DataParallel(model), x), score(model, x))
    assert torch.equal(score(torch.compile(model), x), score(model, x))


# --- labels, params, task ---------------------------------------------------------------------------


LABELS = [0, 1, 2, 0, 1, 2, 1]


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor(LABELS),
        torch.tensor(LABELS, dtype=torch.int32),
        LABELS,
        tuple(LABELS),
        np.array(LABELS),
        np.array(LABELS, dtype=np.uint8),
        [np.int64(y) for y in LABELS],
        [torch.tensor(y) for y in LABELS],
    ],
    ids=lambda labels: f"{type(labels).__name__} of {getattr(labels, 'dtype', type(labels[0]).__name__)}",
)
@pytest.mark.parametrize("engine", ENGINES)
def test_given_labels(labels, engine):
    model, x = mlp(), inputs()
    details = score(model, x, labels=labels, engine=engine, batch_size=3, details=True)
    torch.testing.assert_close(details.perturbed_loss, by_hand(model, x, labels=torch.tensor(LABELS)), **FP64)
    assert details.label.tolist() == LABELS
    assert details.label.dtype == torch.int64


def test_params_chooses_what_is_perturbed():
    model, x = mlp(), inputs()
    asked = []
    head = score(model, x, params=lambda name: asked.append(name) or name.startswith("2."), details=True)
    assert asked == ["0.weight", "0.bias", "2.weight", "2.bias"]
    frozen = copy.deepcopy(model)
    frozen[0].requires_grad_(False)
    torch.testing.assert_close(head.perturbed_loss, score(frozen, x), **FP64)
    assert (head.grad_norm < score(model, x, details=True).grad_norm).all()


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.classes, self.places = nn.Linear(4, 5 * 3).double(), nn.Linear(4, 5 * 2).double()

    def forward(self, x):
        return {"logits": self.classes(x).reshape(-1, 5, 3), "boxes": self.places(x).reshape(-1, 5, 2)}


class SumOverBoxes:
    def pseudo_label(self, output):
        return {"class": output["logits"].argmax(-1), "box": output["boxes"] * 0.9}

    def loss(self, output, label):
        names = F.cross_entropy(output["logits"].mT, label["class"], reduction="none").sum(1)
        return names + F.smooth_l1_loss(output["boxes"], label["box"], reduction="none").sum((1, 2))


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_a_task_of_ones_own_with_labels_in_a_dict(engine):
    model, x = Detector(), inputs()
    details = score(model, x, task=SumOverBoxes(), engine=engine, batch_size=3, details=True)
    assert details.label["class"].shape == (7, 5)
    assert details.label["box"].shape == (7, 5, 2)
    truth = score(model, x, task=SumOverBoxes(), engine="reference", details=True)
    torch.testing.assert_close(details.perturbed_loss, truth.perturbed_loss, **FP64)
    torch.testing.assert_close(details.grad_norm, truth.grad_norm, **FP64)
    again = score(model, x, task=SumOverBoxes(), engine=engine, labels=details.label, batch_size=2)
    torch.testing.assert_close(again, truth.perturbed_loss, **FP64)


def test_a_task_for_regression_with_given_targets():
    class Squares:
        def pseudo_label(self, output):
            return output

        def loss(self, output, label):
            return (output - label).square().sum(1)

    model, x, targets = nn.Linear(4, 2).double(), inputs(), torch.randn(7, 2, dtype=torch.float64)
    details = score(model, x, task=Squares(), labels=targets, details=True)
    torch.testing.assert_close(details.loss, (model(x) - targets).square().sum(1).detach(), **FP64)
    assert (details.sharpness > 0).all()
    exact = score(model, x, task=Squares(), details=True)  # its own output for a target: no loss, no gradient, no push
    assert (exact.perturbed_loss == 0).all()


@pytest.mark.parametrize("wrap", [lambda z: (z, None), lambda z: [z], lambda z: {"out": z}])
def test_other_kinds_of_output(wrap):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            return wrap(self.body(x))

    for engine in ENGINES:
        torch.testing.assert_close(score(Wrapped(), inputs(), engine=engine), score(mlp(), inputs()), **FP64)


class CutOff(nn.Module):
    """Predicts, but lets no gradient through."""

    def __init__(self, cut):
        super().__init__()
        self.body, self.unused, self.cut = mlp(), nn.Linear(2, 2).double(), cut

    def forward(self, x):
        return self.cut(self.body)(x)


@pytest.mark.parametrize(
    ("cut", "params"),
    [
        (torch.no_grad(), None),
        (lambda body: lambda x: body(x).detach(), None),
        (lambda body: body, lambda name: "unused" in name),
    ],
)
@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_a_loss_without_a_gradient_is_told(cut, params, engine, caplog):
    forget_warnings()
    details = score(CutOff(cut), inputs(), params=params, engine=engine, details=True)
    torch.testing.assert_close(details.perturbed_loss, details.loss, **FP64)
    assert (details.grad_norm == 0).all()
    (record,) = caplog.records
    assert "does not depend on the parameters to perturb" in record.getMessage()
    assert "CutOff run under no_grad" in record.getMessage()


# --- progress ---------------------------------------------------------------------------------------


def test_progress_counts_samples(capsys):
    score(mlp(), inputs(7), batch_size=3, progress=True)
    assert "7/7" in capsys.readouterr().err
    for quiet in (False, None):
        score(mlp(), inputs(7), progress=quiet)
        assert capsys.readouterr().err == ""


def test_what_the_package_offers():
    assert {"score", "select", "kmeans_plusplus", "show_config", "Scores", "Task"} <= set(saal_fast.__all__)
    assert all(hasattr(saal_fast, name) for name in saal_fast.__all__)


class _Boxes(nn.Module):
    """As many boxes as an image has bright pixels: a number that varies from sample to sample."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 3)

    def forward(self, x):
        return self.head(x.flatten()[:, None])[None]


class _SumOverBrightPixels:
    def pseudo_label(self, output):
        bright = output[0][:, 0] > output[0][:, 0].mean()
        return {"box": bright.nonzero()[:, 0][None], "class": output[0][bright].argmax(1)[None]}

    def loss(self, output, label):
        logits = output[0][label["box"][0]]
        return nn.functional.cross_entropy(logits, label["class"][0], reduction="sum")[None]


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_a_varying_number_of_boxes(engine):
    torch.manual_seed(0)
    model, pool = _Boxes(), torch.randn(5, 2, 4)
    together = score(model, pool, task=_SumOverBrightPixels(), engine=engine, details=True)
    alone = [score(model, x[None], task=_SumOverBrightPixels(), engine=engine) for x in pool]
    torch.testing.assert_close(together.perturbed_loss, torch.cat(alone))
    assert len(together.label) == 5


@pytest.mark.parametrize("engine", ["ghost", "vmap", "reference"])
def test_no_radius_gives_the_loss_to_the_last_bit(engine):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    scores = score(model, torch.randn(6, 1, 8, 8), rho=0, engine=engine, details=True)
    assert torch.equal(scores.perturbed_loss, scores.loss)


# --- memory ---------------------------------------------------------------------------------------


class Greedy(nn.Module):
    """Has memory for `most` samples of a batch, as a device would."""

    def __init__(self, most, met=None):
        super().__init__()
        self.layer, self.most = nn.Linear(4, 3), most
        self.meet = (met if met is not None else []).append  # scoring leaves a model's own lists as they were

    def forward(self, x):
        inner = x
        while torch._C._functorch.is_functorch_wrapped_tensor(inner):
            inner = torch._C._functorch.get_unwrapped(inner)
        self.meet(len(inner))
        if len(inner) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.layer(x)


@pytest.mark.parametrize("engine", ["ghost", "vmap"])
def test_batches_are_halved_where_memory_runs_out_and_nothing_is_scored_twice(engine, caplog):
    pool, labels = torch.randn(21, 4), torch.arange(21) % 3
    met = []
    model = Greedy(5, met)
    scores = saal_fast.score(model, pool, engine=engine, batch_size=8, labels=labels)
    assert "memory ran out on a batch of 8 samples: going on with batches of 4" in caplog.text
    assert len(caplog.records) == 1
    assert max(met[met.index(8) + 1 :]) == 4
    model.most = 100
    torch.testing.assert_close(scores, saal_fast.score(model, pool, engine=engine, labels=labels))


def test_one_sample_that_memory_does_not_hold_raises():
    with pytest.raises(torch.OutOfMemoryError):
        saal_fast.score(Greedy(0), torch.randn(5, 4))


def test_max_memory_bounds_the_batch(monkeypatch):
    sizes = []
    run = Runner.run
    monkeypatch.setattr(Runner, "run", lambda self, batch: sizes.append(batch.size) or run(self, batch))
    model, pool = nn.Linear(1000, 3), torch.randn(40, 1000)
    saal_fast.score(model, pool)
    assert sizes == [40]
    sizes.clear()
    saal_fast.score(model, pool, max_memory=100_000)
    assert len(sizes) > 1
    few = max(sizes)
    sizes.clear()
    saal_fast.score(model, pool, max_memory=1)
    assert sizes == [1] * 40 or max(sizes) < few
    for bad in (0, -1, 1.5, "1 GB", True):
        with pytest.raises(ValueError, match="expected max_memory to be None or a whole number of bytes >= 1, got"):
            saal_fast.score(model, pool, max_memory=bad)
