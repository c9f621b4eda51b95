"""Scores and features do not depend on an autocast around the call."""

from functools import partial

import pytest
import torch
from habitual import ENGINES
from torch import nn

import saal_fast
from saal_fast.models.features import logits, penultimate


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
