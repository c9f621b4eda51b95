import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saal_fast.perturbation import L2, Adaptive, Lp, epsilon, make

NORMS = [1.01, 1.1, 1.5, 2, 3, 50, math.inf]
RHO = 0.3


def drawn(seed, dtype=torch.float64):
    """A gradient and weights of three parameters, one of them a single number."""
    rng = torch.Generator().manual_seed(seed)
    shapes = {"w": (3, 4), "b": (3,), "s": ()}
    make_all = lambda: {n: torch.randn(s, generator=rng, dtype=torch.float64).to(dtype) for n, s in shapes.items()}  # noqa: E731
    return make_all(), make_all()


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors.values()])


def times(c, tensors):
    return {name: c * t for name, t in tensors.items()}


def dual(p):
    return 1.0 if math.isinf(p) else p / (p - 1)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(NORMS), st.integers(0, 10**6))
def test_epsilon_lies_on_the_sphere_and_no_competitor_gains_more(p, seed):
    g, w = drawn(seed)
    eps, norm = epsilon(make(RHO, p), g, w)
    gain = flat(g) @ flat(eps)
    torch.testing.assert_close(flat(eps).norm(p=p).item(), RHO, rtol=1e-9, atol=0)
    torch.testing.assert_close(norm, flat(g).norm(p=dual(p)), rtol=1e-9, atol=0)
    torch.testing.assert_close(gain, RHO * norm, rtol=1e-9, atol=0)  # Hölder holds with equality
    others = torch.randn(500, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    others = others * (RHO / others.norm(p=p, dim=1, keepdim=True))
    near = flat(eps) + 0.05 * others
    near = near * (RHO / near.norm(p=p, dim=1, keepdim=True))
    assert (torch.cat([others, near]) @ flat(g)).max() <= gain + 1e-12


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_the_adaptive_step_is_the_worst_of_its_own_ball(seed):
    g, w = drawn(seed)
    eps, norm = epsilon(make(RHO, adaptive=True), g, w)
    torch.testing.assert_close((flat(eps) / flat(w)).norm().item(), RHO, rtol=1e-9, atol=0)
    torch.testing.assert_close(norm, (flat(w).abs() * flat(g)).norm(), rtol=1e-9, atol=0)
    torch.testing.assert_close(flat(eps), RHO * flat(w) ** 2 * flat(g) / norm, rtol=1e-9, atol=0)  # the published step
    others = torch.randn(500, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    others = flat(w).abs() * others * (RHO / others.norm(dim=1, keepdim=True))
    assert (others @ flat(g)).max() <= flat(g) @ flat(eps) + 1e-12


def test_adaptive_leaves_weights_of_zero_where_they_are():
    g, w = drawn(0)
    w["b"][1] = 0
    eps, _ = epsilon(make(RHO, adaptive=True), g, w)
    assert eps["b"][1] == 0
    assert eps["b"][0] != 0


def test_the_infinite_norm_is_the_sign():
    g, w = drawn(0)
    g["b"][1] = 0
    eps, _ = epsilon(make(RHO, math.inf), g, w)
    assert torch.equal(flat(eps), RHO * flat(g).sign())


def test_p_of_two_by_the_general_rule_is_the_special_one():
    g, w = drawn(0)
    general, special = epsilon(Lp(RHO, 2.0), g, w), epsilon(L2(RHO), g, w)
    torch.testing.assert_close(general, special, rtol=1e-12, atol=0)


def test_a_norm_of_great_p_tends_to_the_infinite_one():
    g, w = drawn(0)
    torch.testing.assert_close(epsilon(make(RHO, 1e9), g, w), epsilon(make(RHO, math.inf), g, w), rtol=1e-6, atol=0)


@pytest.mark.parametrize("rule", [make(RHO, p) for p in NORMS] + [make(RHO, adaptive=True)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
class TestEveryRule:
    def test_a_zero_gradient_gives_zero(self, rule, dtype):
        g, w = drawn(0, dtype)
        eps, norm = epsilon(rule, times(0, g), w)
        assert (flat(eps) == 0).all()
        assert norm == 0

    def test_zeros_beside_a_gradient_stay_finite(self, rule, dtype):
        g, w = drawn(0, dtype)
        g["w"] = torch.zeros_like(g["w"])
        eps, norm = epsilon(rule, g, w)
        assert flat(eps).isfinite().all()
        assert norm > 0
        assert (eps["w"] == 0).all()

    def test_a_radius_of_zero_gives_zero(self, rule, dtype):
        g, w = drawn(0, dtype)
        still = make(0.0, getattr(rule, "p", 2), isinstance(rule, Adaptive))
        assert (flat(epsilon(still, g, w)[0]) == 0).all()

    def test_shapes_and_dtype_are_those_of_the_weights(self, rule, dtype):
        g, w = drawn(0, dtype)
        eps, norm = epsilon(rule, g, w)
        assert {n: (e.shape, e.dtype) for n, e in eps.items()} == {n: (t.shape, dtype) for n, t in w.items()}
        assert (norm.shape, norm.dtype) == ((), dtype)

    def test_gradients_are_only_read(self, rule, dtype):
        g, w = drawn(0, dtype)
        epsilon(rule, g, w)
        assert torch.equal(flat(g), flat(drawn(0, dtype)[0]))
        assert torch.equal(flat(w), flat(drawn(0, dtype)[1]))

    @pytest.mark.parametrize("factor", [1e-6, 0.5, 1e6])
    def test_the_length_of_the_gradient_does_not_matter(self, rule, dtype, factor):
        g, w = drawn(0, dtype)
        (eps, norm), (scaled, scaled_norm) = epsilon(rule, g, w), epsilon(rule, times(factor, g), w)
        tolerance = 1e-4 if dtype == torch.float32 else 1e-10
        torch.testing.assert_close(scaled, eps, rtol=tolerance, atol=tolerance * 1e-3)
        torch.testing.assert_close(scaled_norm, norm * factor, rtol=tolerance, atol=0)


@pytest.mark.parametrize("p", [1.01, 1.1, 1.5, 3, 50, math.inf])
@pytest.mark.parametrize("factor", [1e-30, 1e-20, 1e20, 1e30])
def test_powers_of_extreme_gradients_neither_vanish_nor_overflow_in_fp32(p, factor):
    g, w = drawn(1, torch.float32)
    (eps, norm), (scaled, scaled_norm) = epsilon(make(RHO, p), g, w), epsilon(make(RHO, p), times(factor, g), w)
    torch.testing.assert_close(scaled, eps, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(scaled_norm.double(), norm.double() * factor, rtol=1e-4, atol=0)
    torch.testing.assert_close(flat(scaled).double().norm(p=p).item(), RHO, rtol=1e-4, atol=0)


@pytest.mark.parametrize("number", [1, 0.05, np.float32(0.5), np.float64(0.5), np.int64(2), Fraction(1, 2)], ids=repr)
def test_any_real_number_is_a_radius(number):
    assert make(number) == L2(float(number))
    assert type(make(number).rho) is float


@pytest.mark.parametrize("p", [2, 2.0, np.float32(2)])
def test_a_norm_of_two_is_the_paper_s_rule(p):
    assert make(0.1, p) == L2(0.1)
    assert make(0.1, p, adaptive=True) == Adaptive(0.1)


@pytest.mark.parametrize("number", ["0.1", None, True, 1j, [0.1], torch.tensor(0.1)], ids=repr)
@pytest.mark.parametrize("name", ["rho", "norm"])
def test_what_is_no_number_is_named(name, number):
    with pytest.raises(TypeError, match=rf"expected {name} to be a number, got .*\({type(number).__name__}\)"):
        make(**{"rho": 0.1, name: number})


@pytest.mark.parametrize("rho", [-0.1, -math.inf, math.inf, math.nan])
def test_a_radius_out_of_range(rho):
    with pytest.raises(ValueError, match=rf"expected a finite rho >= 0, got rho={rho}"):
        make(rho)


@pytest.mark.parametrize("norm", [1, 1.0, 0.5, 0, -2, -math.inf, math.nan])
def test_a_norm_out_of_range(norm):
    with pytest.raises(ValueError, match=rf"expected norm \(the p of Eq. 3\) in \(1, inf\], got norm={norm}"):
        make(0.1, norm)


@pytest.mark.parametrize("norm", [3, 1.5, math.inf])
def test_adaptive_has_no_other_norm(norm):
    with pytest.raises(ValueError, match=rf"adaptive=True is defined for norm=2 only, got norm={norm}"):
        make(0.1, norm, adaptive=True)


@pytest.mark.parametrize("name", ["rho", "norm"])
@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000, Fraction(10**400), Decimal(10) ** 400], ids=type)
def test_numbers_beyond_float64(name, value):
    with pytest.raises(ValueError, match=f"expected {name} within float64, got a number of type "):
        make(**{"rho": 0.1, name: value})


@pytest.mark.parametrize("value", [Fraction(1, 4), Decimal("0.25"), np.float64(0.25), np.float32(0.25), 0.25])
def test_real_numbers_of_any_type(value):
    rule = make(value, norm=type(value)(12) * value)
    assert rule == Lp(0.25, 3.0)
    assert type(rule.rho) is type(rule.p) is float


def test_minus_zero_is_zero():
    assert math.copysign(1, make(-0.0).rho) == 1


@pytest.mark.parametrize("value", [True, "0.05", None, 1j, np.bool_(True), np.array(0.05), torch.tensor(0.05)])
@pytest.mark.parametrize("name", ["rho", "norm"])
def test_what_is_no_real_number(name, value):
    with pytest.raises(TypeError, match=f"expected {name} to be a number, got "):
        make(**{"rho": 0.1, name: value})


@pytest.mark.parametrize("value", [math.nan, Decimal("NaN"), np.float32("nan"), math.inf, -1, Decimal("-Infinity")])
def test_radii_out_of_range(value):
    with pytest.raises(ValueError, match="expected a finite rho >= 0, got rho="):
        make(value)
