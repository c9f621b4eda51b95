import math

import pytest
import torch
from torch import nn

from saal_fast.optim.ascent import global_norm, gradients, step_scale


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_norm_is_one_over_all_tensors(dtype):
    tensors = [
        torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype) for size in ((3, 4), (0, 5), (), (7,))
    ]
    expected = torch.cat([t.double().flatten() for t in tensors]).norm().item()
    assert global_norm(tensors) == pytest.approx(expected, rel=1e-6 if dtype != torch.float64 else 1e-14)


@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-30, 1e-22, 1e-16, 1e-15, 1.0, 1e19, 1e30, 3e38])
def test_no_size_of_float32_under_or_overflows(size):
    tensors = [torch.full((3, 3), size), torch.zeros(2), torch.full((7,), -size)]
    assert global_norm(tensors) == pytest.approx(4 * tensors[0][0, 0].item(), rel=1e-6)


@pytest.mark.parametrize("size", [1e-300, 1e-170, 1e170, 1e300])
def test_no_size_of_float64_under_or_overflows(size):
    assert global_norm([torch.full((16,), size, dtype=torch.float64)]) == pytest.approx(4 * size)


def test_small_and_large_tensors_together():
    assert global_norm([torch.full((4,), 1e-30), torch.full((4,), 2.0)]) == 4
    assert global_norm([torch.full((4,), 1e-30), torch.full((4,), 2e30)]) == pytest.approx(4e30)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows(value):
    assert not math.isfinite(global_norm([torch.ones(3), torch.tensor([1.0, value])]))


def test_nothing_at_all_is_zero():
    assert global_norm([torch.zeros(0), torch.zeros(2, 0)]) == 0
    assert global_norm([torch.zeros(3)]) == 0


def test_the_scale_of_the_step():
    assert step_scale(0.5, 2.0) == 0.25
    assert step_scale(0.0, 2.0) == 0
    assert step_scale(0.0, 0.0) == 0
    for norm in (0.0, 1e-60, math.inf, math.nan):
        assert step_scale(0.5, norm) == 0
    assert step_scale(1e6, 1e-35) == 0  # the quotient is no float32
    assert step_scale(0.05, 1e-37) == pytest.approx(5e35)


def test_gradients_leave_out_what_has_none_and_see_complex_numbers_as_pairs():
    a, b, c = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, dtype=torch.complex64))
    a.grad, c.grad = torch.ones(2), torch.tensor([1 + 2j, 3j]).conj()
    weights, grads = gradients({"params": [a, b, c]})
    assert weights[0] is a
    assert weights[1].data_ptr() == c.data_ptr()
    assert grads[1].tolist() == [[1, -2], [0, -3]]
