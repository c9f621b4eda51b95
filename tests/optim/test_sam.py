"""SAM's step against closed forms and a plain reference."""

import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import SGD, Adam, batches, loss_of, net, quadratic, two_passes, weights_of
from torch import nn

from saal_fast import SAM
from saal_fast.perturbation import epsilon, make


def bits(tensor):
    return tensor.detach().contiguous().view(torch.uint8).tolist()


# --- closed forms -----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 2), st.booleans())
def test_steps_on_a_quadratic_are_the_closed_form(seed, rho, adaptive):
    """∇(w + ε) = g + A ε with g = A w - b: exact, as the gradient is linear."""
    A, b, start = quadratic(seed)
    p = nn.Parameter(start.clone())
    optimizer = SAM([p], SGD, rho=rho, adaptive=adaptive, lr=0.05)
    w = start
    for _ in range(3):
        g = A @ w - b
        eps = rho * w**2 * g / (w.abs() * g).norm() if adaptive else rho * g / g.norm()
        w = w - 0.05 * (g + A @ eps)
        two_passes(optimizer, lambda: 0.5 * p @ A @ p - b @ p)
        torch.testing.assert_close(p.detach(), w, rtol=1e-11, atol=1e-12)


def test_momentum_gathers_the_gradients_at_the_perturbed_weights():
    A, b, w = quadratic(3)
    p = nn.Parameter(w.clone())
    optimizer = SAM([p], SGD, rho=0.3, lr=0.05, momentum=0.9, weight_decay=0.01)
    momentum = torch.zeros_like(w)
    for _ in range(4):
        g = A @ w - b
        momentum = 0.9 * momentum + g + A @ (0.3 * g / g.norm()) + 0.01 * w  # decay is the base's, and at w
        w = w - 0.05 * momentum
        two_passes(optimizer, lambda: 0.5 * p @ A @ p - b @ p)
    torch.testing.assert_close(p.detach(), w, rtol=1e-11, atol=0)


@pytest.mark.parametrize("w", [-2.0, 0.5])
def test_one_dimension(w):
    """a w²/2: w ← (1 - lr a) w - lr a ρ sign(w), or with |w| ρ in the place of ρ."""
    for adaptive, radius in ((False, 0.2), (True, 0.2 * abs(w))):
        p = nn.Parameter(torch.tensor(w, dtype=torch.float64))
        two_passes(SAM([p], SGD, rho=0.2, adaptive=adaptive, lr=0.1), lambda p=p: 1.5 * p**2)
        torch.testing.assert_close(p.item(), 0.7 * w - 0.3 * math.copysign(radius, w), rtol=1e-14, atol=0)


def test_on_a_linear_loss_sam_is_its_base():
    slope = torch.randn(5, dtype=torch.float64)
    p, q = (nn.Parameter(torch.ones(5, dtype=torch.float64)) for _ in range(2))
    sam, base = SAM([p], Adam, rho=0.5, lr=0.1), Adam([q], lr=0.1)
    for _ in range(3):
        two_passes(sam, lambda: slope @ p)
        base.zero_grad()
        (slope @ q).backward()
        base.step()
    assert torch.equal(p, q)


def test_along_a_valley_sam_goes_where_it_is_flat():
    """(x y - 1)²/2 is zero on a hyperbola, its curvature x² + y²: least at x = y. Plain descent stays where it lands."""
    curvatures = []
    for rho in (0.0, 0.2):
        p = nn.Parameter(torch.tensor([4.0, 0.3], dtype=torch.float64))
        optimizer = SAM([p], SGD, rho=rho, lr=0.05)
        for _ in range(400):
            two_passes(optimizer, lambda p=p: (p.prod() - 1) ** 2 / 2)
        curvatures.append(p.detach().square().sum().item())
    assert curvatures[0] > 15
    assert curvatures[1] < 3


# --- the recipe -------------------------------------------------------------------------------------


def recipe(model, base, groups, loss):
    """One step as the widely used published code takes it, tensor by tensor; groups are (parameters, ρ, adaptive)."""
    loss().backward()
    sizes = [(p.abs() if adaptive else 1.0) * p.grad for ps, _, adaptive in groups for p in ps]
    norm = torch.stack([size.detach().norm(p=2) for size in sizes]).norm(p=2)
    before = weights_of(model)
    with torch.no_grad():
        for ps, rho, adaptive in groups:
            for p in ps:
                p.add_((p**2 if adaptive else 1.0) * p.grad * (rho / (norm + 1e-12)))
    model.zero_grad()
    loss().backward()
    with torch.no_grad():
        for p, w in zip(model.parameters(), before, strict=True):
            p.copy_(w)
    base.step()
    model.zero_grad()


BASES = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    (Adam, {"lr": 0.01, "amsgrad": True}),
    (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5}),
    (torch.optim.Adagrad, {"lr": 0.1}),
]


@pytest.mark.parametrize(("base", "setting"), BASES, ids=lambda x: x.__name__ if isinstance(x, type) else "-".join(x))
@pytest.mark.parametrize("by_closure", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
def test_parity_with_the_published_recipe(base, setting, adaptive, by_closure):
    model, twin = net(), net()
    optimizer = SAM(model.parameters(), base, rho=0.5, adaptive=adaptive, **setting)
    other = base(twin.parameters(), **setting)
    for batch in batches(5):
        recipe(twin, other, [([*twin.parameters()], 0.5, adaptive)], lambda batch=batch: loss_of(twin, batch))
        if by_closure:

            def closure(batch=batch):
                loss = loss_of(model, batch)
                loss.backward()
                return loss

            closure()
            optimizer.step(closure)
            optimizer.zero_grad()
        else:
            two_passes(optimizer, lambda batch=batch: loss_of(model, batch))
    torch.testing.assert_close(weights_of(model), weights_of(twin), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(model[0].weight, net()[0].weight)


def test_groups_have_their_own_radius_form_and_rate_and_share_the_norm():
    model, twin = net(), net()
    optimizer = SAM(
        [
            {"params": model[0].parameters(), "rho": 0.3, "adaptive": True, "lr": 0.2},
            {"params": [model[2].weight], "rho": 0.1},
            {"params": [model[2].bias], "adaptive": True, "momentum": 0.0},
        ],
        SGD,
        rho=0.7,
        lr=0.1,
        momentum=0.9,
    )
    base = SGD(
        [
            {"params": twin[0].parameters(), "lr": 0.2},
            {"params": [twin[2].weight]},
            {"params": [twin[2].bias], "momentum": 0.0},
        ],
        lr=0.1,
        momentum=0.9,
    )
    groups = [([*twin[0].parameters()], 0.3, True), ([twin[2].weight], 0.1, False), ([twin[2].bias], 0.7, True)]
    for batch in batches(4):
        recipe(twin, base, groups, lambda batch=batch: loss_of(twin, batch))
        two_passes(optimizer, lambda batch=batch: loss_of(model, batch))
    torch.testing.assert_close(weights_of(model), weights_of(twin), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_perturbation_is_the_one_of_the_scores(adaptive):
    model, (batch,) = net(), batches(1)
    loss_of(model, batch).backward()
    named = dict(model.named_parameters())
    grads = {name: p.grad.clone() for name, p in named.items()}
    before = {name: p.detach().clone() for name, p in named.items()}
    expected, _ = epsilon(make(0.4, adaptive=adaptive), grads, before)
    SAM(model.parameters(), SGD, rho=0.4, adaptive=adaptive, lr=0.1).first_step()
    for name, p in named.items():
        torch.testing.assert_close(p.detach() - before[name], expected[name], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("factor", [1e-30, 1e-18, 1e-3, 1e18, 1e30])
def test_the_length_of_the_gradient_does_not_matter_in_float32(factor, adaptive):
    w, g = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    p = nn.Parameter(w.clone())
    p.grad = g * factor
    SAM([p], SGD, rho=0.5, adaptive=adaptive, lr=0.1).first_step()
    expected = 0.5 * w**2 * g / (w * g).norm() if adaptive else 0.5 * g / g.norm()
    torch.testing.assert_close(p.detach(), w + expected, rtol=1e-5, atol=1e-6)


def test_a_radius_of_zero_is_the_base_bit_for_bit():
    model, twin = net(), net()
    optimizer, base = SAM(model.parameters(), Adam, rho=0, lr=0.01), Adam(twin.parameters(), lr=0.01)
    for batch in batches(3):
        two_passes(optimizer, lambda batch=batch: loss_of(model, batch))
        base.zero_grad()
        loss_of(twin, batch).backward()
        base.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


# --- which gradients --------------------------------------------------------------------------------


def test_where_the_gradient_is_zero_nothing_moves():
    for adaptive in (False, True):
        p = nn.Parameter(torch.tensor([1.0, -2.0]))
        p.grad = torch.zeros(2)
        optimizer = SAM([p], SGD, rho=0.5, adaptive=adaptive, lr=0.1)
        optimizer.first_step()
        assert p.tolist() == [1, -2]
        optimizer.second_step()
        assert p.tolist() == [1, -2]


def test_weights_of_zero_stay_in_the_adaptive_form():
    p = nn.Parameter(torch.zeros(3))
    p.grad = torch.ones(3)
    SAM([p], SGD, adaptive=True, lr=0.1).first_step()
    assert p.tolist() == [0, 0, 0]


def test_parameters_without_a_gradient_stay_and_those_that_get_one_later_step():
    used, unused, late = (nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = SAM([used, unused, late], SGD, rho=0.1, lr=0.1)
    used.sum().backward()
    optimizer.first_step(zero_grad=True)
    assert not torch.equal(used, torch.ones(2))
    assert torch.equal(late, torch.ones(2))
    late.sum().backward()
    optimizer.second_step()
    assert torch.equal(used, torch.ones(2))
    assert torch.equal(unused, torch.ones(2))
    assert torch.equal(late, torch.full((2,), 0.9))


def test_an_empty_parameter_and_a_number():
    empty, number = nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.tensor(2.0))
    two_passes(SAM([empty, number], SGD, rho=0.1, lr=0.1), lambda: number**2 + empty.sum())
    assert number.item() == pytest.approx(2 - 0.1 * 2 * 2.1)


def test_maximize_looks_for_the_worst_below():
    A, b, start = quadratic(0)
    up, down = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    two_passes(SAM([up], SGD, rho=0.3, lr=0.1, maximize=True), lambda: b @ up - 0.5 * up @ A @ up)
    two_passes(SAM([down], SGD, rho=0.3, lr=0.1), lambda: 0.5 * down @ A @ down - b @ down)
    torch.testing.assert_close(up, down, rtol=1e-12, atol=0)


@pytest.mark.parametrize("adaptive", [False, True])
def test_complex_parameters_are_pairs_of_real_ones(adaptive):
    start = torch.randn(6, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    target = torch.randn(6, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    z, xy = nn.Parameter(start.clone()), nn.Parameter(torch.view_as_real(start).clone())
    a, b = (SAM([p], SGD, rho=0.3, adaptive=adaptive, lr=0.05, momentum=0.9) for p in (z, xy))
    for _ in range(3):
        two_passes(a, lambda: torch.linalg.vector_norm(z.conj() * z - target) ** 2)
        two_passes(b, lambda: torch.linalg.vector_norm(xy.square().sum(1) - target) ** 2)
    torch.testing.assert_close(torch.view_as_real(z), xy, rtol=1e-12, atol=0)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("size", [1e-6, 1.0, 6e4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights(dtype, size, adaptive):
    """The norm, the factor and the sum are taken in float32: a float16 would overflow, and round more than once."""
    p = nn.Parameter(torch.ones(400, dtype=dtype))
    p.grad = torch.full((400,), size, dtype=dtype)
    SAM([p], SGD, rho=10.0, adaptive=adaptive, lr=0.1).first_step()
    assert p.tolist() == [1.5] * 400


def test_weights_of_several_dtypes_share_the_norm():
    a, b = nn.Parameter(torch.zeros(1, dtype=torch.float64)), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.full_like(a, 3), torch.full_like(b, 4)
    SAM([a, b], SGD, rho=1.0, lr=0.1).first_step()
    assert (a.item(), b.item()) == (pytest.approx(0.6), pytest.approx(0.8))


def test_a_sparse_gradient_is_refused_before_anything_moves():
    embedding, dense = nn.Embedding(5, 2, sparse=True), nn.Linear(2, 1)
    before = weights_of(dense)
    optimizer = SAM([*dense.parameters(), *embedding.parameters()], SGD, lr=0.1)
    dense(embedding(torch.tensor([1]))).sum().backward()
    with pytest.raises(RuntimeError, match=r"expected dense gradients, got .* torch.sparse_coo .* shape \(5, 2\)"):
        optimizer.first_step()
    assert all(torch.equal(p, w) for p, w in zip(dense.parameters(), before, strict=True))


# --- the weights come back --------------------------------------------------------------------------


AWKWARD = [0.0, -0.0, 1e-40, -1e-45, 3e38, math.nan, math.inf, 1.0, 1 / 3]


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_weights_come_back_bit_for_bit(adaptive):
    p = nn.Parameter(torch.tensor(AWKWARD))
    p.data.view(torch.int32)[5] |= struct.unpack("i", struct.pack("f", 0.0))[0] | 0x1234  # a NaN with a message
    before, place = bits(p), p.data_ptr()
    optimizer = SAM([p], SGD, rho=0.5, adaptive=adaptive, lr=0.1)
    p.grad = torch.ones_like(p)
    optimizer.first_step()
    optimizer.restore()
    assert bits(p) == before
    assert p.data_ptr() == place
    p.grad = torch.randn(len(AWKWARD))
    optimizer.first_step()
    p.grad.zero_()
    optimizer.base_optimizer.step = lambda: None  # only what second_step does of itself
    optimizer.second_step()
    assert bits(p) == before


def test_weights_that_do_not_lie_row_by_row_come_back():
    p = nn.Parameter(torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last))
    q = nn.Parameter(torch.randn(8, 6).T[::2])
    before = [bits(p), bits(q)]
    optimizer = SAM([p, q], SGD, rho=0.5, lr=0.1)
    (p.sin().sum() + q.cos().sum()).backward()
    optimizer.first_step()
    assert [bits(p), bits(q)] != before
    optimizer.restore()
    assert [bits(p), bits(q)] == before


def test_restore_without_a_first_step_does_nothing():
    p = nn.Parameter(torch.ones(2))
    optimizer = SAM([p], SGD, lr=0.1)
    optimizer.restore()
    two_passes(optimizer, lambda: p.square().sum())
    after = p.detach().clone()
    optimizer.restore()
    assert torch.equal(p, after)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("adaptive", [False, True])
def test_a_gradient_that_is_not_finite_moves_nothing(value, adaptive):
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    p.grad, q.grad = torch.tensor([1.0, value]), torch.ones(2)
    optimizer = SAM([p, q], SGD, adaptive=adaptive, lr=0.1)
    optimizer.first_step(zero_grad=True)
    assert torch.equal(p, torch.ones(2))
    assert torch.equal(q, torch.ones(2))
    (p.sum() + q.sum()).backward()
    optimizer.second_step()
    assert torch.equal(p, torch.full((2,), 0.9))


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_of_zeros_are_none_to_a_closure(set_to_none):
    """As zero_grad(set_to_none=False) leaves them."""
    A, b, w = quadratic(1)
    p, calls = nn.Parameter(w.clone()), []
    optimizer = SAM([p], SGD, rho=0.3, lr=0.1)

    def closure():
        calls.append(None)
        loss = 0.5 * p @ A @ p - b @ p
        loss.backward()
        return loss

    closure()
    optimizer.zero_grad(set_to_none=set_to_none)
    optimizer.step(closure)
    assert len(calls) == 3
    g = A @ w - b
    torch.testing.assert_close(p.detach(), w - 0.1 * (g + A @ (0.3 * g / g.norm())))
