"""Families of models that people bring: each runs by the engine that the table names, with the reference's scores."""

import families
import pytest
import torch

import saal_fast

RHO = 0.05
TOLERANCE = {"perturbed_loss": 1e-9, "loss": 1e-9, "grad_norm": 1e-8}  # relative, in float64


def assert_same(got, want):
    assert (want.perturbed_loss != want.loss).all(), "nothing was perturbed: there is nothing to check"
    assert len(want.loss.unique()) > 1, "all samples are alike: mixing them up would not be seen"
    for name, rtol in TOLERANCE.items():
        torch.testing.assert_close(
            getattr(got, name), getattr(want, name), rtol=rtol, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert torch.equal(got.label, want.label)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if families.slow(n) else n for n in families.NAMES]
)
def test_a_family_runs_by_its_engine(name):
    model, pool, engine = families.build(name)
    got = saal_fast.score(model, pool, RHO, details=True)
    assert got.engine == engine, got.fallback
    want = saal_fast.score(model, pool, RHO, details=True, engine="reference")
    assert_same(got, want)
    if engine != "reference":
        assert_same(saal_fast.score(model, pool, RHO, details=True, engine="vmap"), want)
