"""Scoring in half precision: how near it stays to float32 on a trained model, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import saal_fast
from saal_fast.experiments import networks

NETWORKS = {
    "two convolutions": lambda: nn.Sequential(
        nn.Conv2d(1, 16, 3, 2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 10),
    ),
    "resnet18": lambda: networks.resnet18(10, channels=1, width=16),
}


def spearman(a, b):
    ranks = torch.stack([t.argsort().argsort().double() for t in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


@pytest.fixture(scope="module", params=["two convolutions", pytest.param("resnet18", marks=pytest.mark.slow)])
def trained(request):
    """A network trained on half of the digits, and the other half."""
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    y = torch.tensor(digits.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[request.param]()
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        for step in range(60):
            rows = torch.arange(step * 64, step * 64 + 64) % 900
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval(), x[900:]


@pytest.mark.parametrize("options", [{}, pytest.param({"adaptive": True}, marks=pytest.mark.slow)])
def test_bf16_keeps_the_order_of_a_trained_models_scores(trained, options):
    model, pool = trained
    exact = saal_fast.score(model, pool, **options)
    half = saal_fast.score(model, pool, precision="bf16", details=True, engine="ghost", **options)
    assert half.perturbed_loss.dtype == torch.float32
    assert spearman(half.perturbed_loss, exact) >= 0.99
    most = len(pool) // 10
    top = [set(t.topk(most).indices.tolist()) for t in (half.perturbed_loss, exact)]
    assert len(top[0] & top[1]) >= 0.9 * most
    assert not torch.equal(half.perturbed_loss, exact)  # it did run in half precision


@pytest.mark.parametrize("engine", [pytest.param("vmap", marks=pytest.mark.slow), "reference"])
def test_the_engines_agree_in_bf16(trained, engine):
    """Engines round at different places: nine in ten samples agree to a few percent, and the order stays."""
    model, pool = trained
    ghost = saal_fast.score(model, pool[:200], precision="bf16", details=True)
    options = {"precision": "bf16", "details": True, "engine": engine, "labels": ghost.label}  # rounding may decide a tie
    other = saal_fast.score(model, pool[:200], **options)
    assert ghost.engine == "ghost"
    for name in ("perturbed_loss", "grad_norm"):
        got, want = getattr(ghost, name), getattr(other, name)
        assert ((got - want).abs() / (0.05 * want + 0.015)).quantile(0.9) < 1
        assert spearman(got, want) > 0.995


def test_attention_and_linear_layers():
    encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    model = nn.Sequential(encoder, nn.Flatten(), nn.Linear(64, 5)).eval()
    pool = torch.randn(8, 4, 16)
    half = saal_fast.score(model, pool, precision="bf16", details=True)
    assert half.engine == "ghost"
    torch.testing.assert_close(half.perturbed_loss, saal_fast.score(model, pool), rtol=0.05, atol=0.02)


def test_a_task_sees_float32(trained):
    model, pool = trained
    seen = []

    class Watching(saal_fast.Classification):
        def loss(self, output, label):
            seen.append(output.dtype)
            return super().loss(output, label)

    saal_fast.score(model, pool[:4], precision="bf16", task=Watching(), check=False)  # the check itself is in float64
    assert set(seen) == {torch.float32}


class Output:
    """What some models return: neither a tensor nor a mapping."""

    def __init__(self, logits):
        self.logits = logits


def test_also_within_an_object_of_the_models_own():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(20, 7)

        def forward(self, x):
            return Output(self.layer(x))

    class Own:
        def pseudo_label(self, output):
            return output.logits.argmax(-1)

        def loss(self, output, label):
            return F.cross_entropy(output.logits, label, reduction="none")

    loss = saal_fast.score(Net(), torch.randn(40, 20), precision="bf16", task=Own(), details=True).loss
    assert not torch.equal(loss, loss.bfloat16().float())


def test_nothing_of_it_stays_behind(trained):
    model, pool = trained
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises((RuntimeError, ValueError)):
        saal_fast.score(model, pool[:, :, :, 0], precision="bf16")
    assert not torch.is_autocast_enabled("cpu")
    assert all(torch.equal(before[name], t) and t.dtype == before[name].dtype for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "precision", "error", "message"),
    [
        (nn.Linear(3, 2), "int8", ValueError, r"precision to be one of None, 'bf16', 'fp16'; got 'int8'"),
        (nn.Linear(3, 2), "fp16", ValueError, r'CUDA device for precision="fp16", got cpu'),
        (nn.Linear(3, 2).double(), "bf16", TypeError, r'float32 model for precision="bf16", got weight as torch.float64'),
        (nn.Linear(3, 2).bfloat16(), "bf16", TypeError, r"got weight as torch.bfloat16"),
    ],
)
def test_what_cannot_work_is_refused(model, precision, error, message):
    pool = torch.zeros(2, 3, dtype=next(model.parameters()).dtype)
    with pytest.raises(error, match=message):
        saal_fast.score(model, pool, precision=precision)
    if "bf16" in message or precision == "int8":
        with pytest.raises(error, match=message):
            saal_fast.explain(model, pool, precision=precision)


def test_explain_plans_as_score_does(trained):
    model, pool = trained
    assert saal_fast.explain(model, pool[:1], precision="bf16").fallback is None
