import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saal_fast import strategies


class Say(nn.Module):
    """Answers with the rows of its input as logits."""

    def forward(self, z):
        return z


def reference(name, p):
    """The textbook's formula of one sample's probabilities, in Python's floats."""
    likely = sorted(p, reverse=True)
    return {
        "entropy": -sum(x * math.log2(x) for x in p if x > 0),
        "variation-ratio": 1 - likely[0],
        "least-confidence": 1 - likely[0],
        "margin": 1 - (likely[0] - likely[1]),
    }[name]


NAMES = ["entropy", "variation-ratio", "least-confidence", "margin"]


def scores(name, z):
    return strategies.make(name).select(Say(), z, 1).scores


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.integers(2, 6), st.integers(1, 5), st.floats(0.1, 8), st.integers(0, 1000))
def test_scores_are_the_textbooks(name, classes, n, scale, seed):
    z = scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = [reference(name, row.softmax(0).tolist()) for row in z]
    assert scores(name, z).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearly_certain_samples_keep_their_order_and_their_digits(name, dtype):
    z = torch.zeros(4, 3, dtype=dtype)
    z[:, 1] = torch.tensor([30, 60, 45, 75])
    expected = {
        "entropy": [2 * math.exp(-t) * (t + 1) / math.log(2) for t in (30, 60, 45, 75)],  # p ln p of two, 1 - p of the third
        "variation-ratio": [2 * math.exp(-t) for t in (30, 60, 45, 75)],
        "least-confidence": [2 * math.exp(-t) for t in (30, 60, 45, 75)],
        "margin": [3 * math.exp(-t) for t in (30, 60, 45, 75)],
    }[name]
    chosen = strategies.make(name).select(Say(), z, 4)
    assert chosen.indices.tolist() == [0, 2, 1, 3]
    assert chosen.scores.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-37)


@pytest.mark.parametrize(("name", "most"), [
    ("entropy", 2.0), ("variation-ratio", 0.75), ("least-confidence", 0.75), ("margin", 1.0),
])  # fmt: skip
def test_knowing_nothing_is_the_most_uncertain(name, most):
    z = torch.cat([torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.full((1, 4), 3.0)])
    chosen = strategies.make(name).select(Say(), z, 1)
    assert chosen.indices.tolist() == [5]
    assert chosen.scores[5].item() == pytest.approx(most)


@pytest.mark.parametrize("name", NAMES)
def test_of_equals_the_earlier_is_chosen(name):
    z = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))[[1, 0, 1, 0, 1]]
    assert strategies.make(name).select(Say(), z, 5).indices.tolist() in ([0, 2, 4, 1, 3], [1, 3, 0, 2, 4])


def test_margin_tells_what_variation_ratio_does_not():
    p = torch.tensor([[0.5, 0.5, 0.0001], [0.45, 0.3, 0.25]]).log()
    assert strategies.make("margin").select(Say(), p, 1).indices.tolist() == [0]
    assert strategies.make("variation-ratio").select(Say(), p, 1).indices.tolist() == [1]


def test_outputs_that_are_no_logits_are_an_error():
    with pytest.raises(ValueError, match=r"logits \[B, C\].*\[3, 4, 5\]"):
        scores("entropy", torch.randn(3, 4, 5))
