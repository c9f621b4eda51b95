"""BADGE's embedding is the last layer's gradient; what is drawn from it is k-means++'s own affair."""

import models
import pytest
import small
import torch
import torch.nn.functional as F
from torch import nn

from saal_fast.models.features import last_layer, penultimate
from saal_fast.strategies.badge import BADGE
from saal_fast.tasks import logit_gradient

FP64 = {"rtol": 1e-9, "atol": 1e-12}


def gradients(model, x):
    """The gradient of each sample's pseudo-labelled cross-entropy by the last layer's weight, one sample after the other."""
    layer = last_layer(model, x)[1]
    model.eval()
    rows = []
    for sample in x:
        z = model(sample[None])
        loss = F.cross_entropy(z, z.argmax(1))
        rows.append(torch.autograd.grad(loss, layer.weight)[0])
    return torch.stack(rows)


@pytest.mark.parametrize("build", [
    lambda: (small.network().double(), small.images(6, dtype=torch.float64)),
    lambda: models.build("mlp")[:2],
    lambda: models.build("linear_used_twice")[:2],
])  # fmt: skip
def test_the_factors_are_the_last_layers_gradient(build):
    model, x = build()
    found = penultimate(model, x)
    a, h = logit_gradient(found.logits), found.features
    torch.testing.assert_close(torch.einsum("nc,nd->ncd", a, h), gradients(model, x), **FP64)


def test_residuals_are_softmax_minus_onehot():
    z = torch.randn(20, 5, generator=small.seeded(0), dtype=torch.float64)
    torch.testing.assert_close(logit_gradient(z), z.softmax(1) - F.one_hot(z.argmax(1), 5), **FP64)
    assert logit_gradient(z).sum(1).abs().max() < 1e-15


def test_residuals_keep_their_digits_where_the_model_is_nearly_certain():
    z = torch.tensor([[0.0, 40.0, 0.0]])
    tiny = torch.tensor(-40.0).exp().item()
    assert logit_gradient(z)[0].tolist() == pytest.approx([tiny, -2 * tiny, tiny], rel=1e-5)


@pytest.mark.parametrize(("model", "layer", "words"), [
    (nn.Sequential(nn.Linear(4, 3), nn.Flatten()), None, r"6 logits of its 8 inputs .*'0', a Linear of weight \[3, 4\]"),
    (nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)), "2", "'2', a Tanh without a weight"),
    (nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)), "1", r"3 logits of its 8 inputs .*\[6, 8\]"),
])  # fmt: skip
def test_a_layer_that_does_not_make_the_logits_is_an_error(model, layer, words):
    with pytest.raises(ValueError, match=words):
        BADGE(layer=layer).select(model, torch.randn(5, 2, 4), 2)


def test_a_head_of_one_layer_is_enough():
    model, x = nn.Linear(4, 3).double(), torch.randn(5, 4, dtype=torch.float64)
    found = penultimate(nn.Sequential(model), x)
    assert torch.equal(found.features, x)
