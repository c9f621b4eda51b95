"""Quantisation-aware training: torch's fake quantisation, observed or not."""

from __future__ import annotations

import warnings

import pytest
import torch
from held import check_same
from torch import nn
from torch.ao import quantization

import saal_fast

X = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3


def prepared(*, observes, version):
    torch.manual_seed(0)
    model = nn.Sequential(
        quantization.QuantStub(), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3), quantization.DeQuantStub()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.qconfig = quantization.get_default_qat_qconfig("fbgemm", version=version)
        quantization.prepare_qat(model.train(), inplace=True)
    model(torch.randn(8, 2, 6, 6))
    if not observes:
        model.apply(quantization.disable_observer)
    return model.eval()


@pytest.mark.parametrize("observes", [False, True])
@pytest.mark.parametrize("version", [0, 1])
def test_models_prepared_for_it_run_by_ghost(observes, version):
    model, pool = prepared(observes=observes, version=version), torch.randn(6, 2, 6, 6)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    # ε moves weights across steps of their grid: a smaller one moves none here, so that the check's other precision agrees
    got = saal_fast.score(model, pool, 1e-3, details=True, check=False)
    assert got.engine == "ghost", got.fallback
    want = saal_fast.score(model, pool, 1e-3, details=True, engine="reference", check=False)
    for name in ("loss", "grad_norm", "perturbed_loss"):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-4, atol=1e-6)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_a_scale_that_all_share():
    check_same(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 20), X)
    check_same(lambda x: torch.fake_quantize_per_tensor_affine(x, torch.tensor(0.1), torch.tensor(3), 0, 20), X)
    scale, zero = torch.rand(4) + 0.1, torch.zeros(4, dtype=torch.int32)
    check_same(lambda x: torch.fake_quantize_per_channel_affine(x, scale, zero, 0, -8, 7), X)


def test_a_scale_of_each_samples_own():
    def by_its_own(x):
        return torch.fake_quantize_per_tensor_affine(x, x.abs().amax() / 9, torch.zeros((), dtype=torch.int32), -8, 7)

    check_same(by_its_own, X)
    zero = torch.zeros(4, dtype=torch.int32)
    check_same(lambda x: torch.fake_quantize_per_channel_affine(x, x.abs().amax(1) / 9, zero, 0, -8, 7), X)


def test_gradients_pass_within_the_range():
    slope = torch.func.grad(lambda x: (torch.fake_quantize_per_tensor_affine(x, 0.5, 0, -4, 3) * X[0]).sum())
    check_same(slope, X)
