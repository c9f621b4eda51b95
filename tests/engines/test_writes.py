"""Writes, masks and questions in the part of a model that both passes share, and after it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import saal_fast


class Writing(nn.Module):
    """Writes steps into a tensor, takes some by a mask, asks whether it has taken all, and writes again at the end.

    Args:
        at_the_end: "nothing", "outputs" (what the head gives), "state" (a buffer) or "both" (before and after the head).
    """

    def __init__(self, at_the_end):
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 6)
        self.register_buffer("state", torch.zeros(1, 6))
        self.at_the_end = at_the_end

    def forward(self, x):
        out = torch.zeros(1, 5, 6, dtype=x.dtype)
        for t in range(5):
            out[:, t] = self.body(x[:, t]).tanh() + (out[:, t - 1] if t else 0)
        mask = x[0, :, 0] > 0
        h = out[:, mask].sum(1) * (1.5 if 0 in mask else 1.0)
        if self.at_the_end == "nothing":
            return self.head(h)
        if self.at_the_end == "state":
            self.state.mul_(0.5).add_(h.detach())
            return self.head(h + self.state)
        end = torch.zeros(1, 2, 6, dtype=x.dtype)
        end[:, 0] = self.head(h) if self.at_the_end == "outputs" else h
        kept = end[:, 0] * 1.0
        end[:, 1] = self.head(h.tanh())
        end[:, 0] += 1
        return self.head(end.sum(1)) + kept


def built(at_the_end):
    torch.manual_seed(0)
    model, pool = Writing(at_the_end).double().eval(), torch.randn(9, 5, 4, dtype=torch.float64)
    pool[:, 0, 0] = 1.0  # no mask is empty
    return model, pool


@pytest.mark.parametrize("engine", ["auto", pytest.param("vmap", marks=pytest.mark.slow)])
@pytest.mark.parametrize("chosen", [None, lambda name: name.startswith("head")], ids=["all", "head"])
@pytest.mark.parametrize("at_the_end", ["nothing", "outputs", "state", "both"])
def test_what_is_written_is_a_samples_own(at_the_end, chosen, engine):
    model, pool = built(at_the_end)
    want = saal_fast.score(model, pool, details=True, params=chosen, engine="reference")
    for _ in range(2):  # further calls remember
        got = saal_fast.score(model, pool, details=True, params=chosen, engine=engine)
        assert (got.engine, got.fallback) == ("ghost" if engine == "auto" else engine, None)
        for name in ("perturbed_loss", "loss", "grad_norm"):
            torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-10, atol=1e-12)
    assert model.state.eq(0).all()


def test_a_further_call_knows_where_samples_write():
    model, pool = built("outputs")
    pool[:, :, 0] = 1.0  # one branch
    passes = []
    model.body.register_forward_pre_hook(lambda *_: passes.append(1))
    saal_fast.score(model, pool)
    passes.clear()
    saal_fast.score(model, pool)
    assert len(passes) == 3 * 5  # one sample, and two passes of all, of five steps
