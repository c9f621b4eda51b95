"""SAM with clipped gradients and under a GradScaler."""

import math

import pytest
import torch
from loops import SGD, batches, loss_of, net, quadratic, same, train, two_passes, weights_of
from torch import nn

from saal_fast import SAM


def test_clipping_counts_at_the_second_gradient_only():
    A, b, w = quadratic(1)
    p = nn.Parameter(w.clone())
    optimizer = SAM([p], SGD, rho=0.3, lr=0.1)

    def clipped():
        loss = 0.5 * p @ A @ p - b @ p
        loss.backward()
        nn.utils.clip_grad_norm_([p], 0.01)

    clipped()
    optimizer.first_step(zero_grad=True)
    clipped()
    optimizer.second_step()
    g = A @ w - b
    g = g + A @ (0.3 * g / g.norm())
    torch.testing.assert_close(p.detach(), w - 0.1 * 0.01 * g / g.norm(), rtol=1e-5, atol=0)  # clipping adds 1e-6


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("unscaled_by_hand", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
def test_a_grad_scaler_changes_no_bit(enabled, unscaled_by_hand, adaptive):
    """Its scale is a power of two."""
    model, twin = net(dtype=torch.float32), net(dtype=torch.float32)
    optimizer, other = (SAM(m.parameters(), SGD, rho=0.5, adaptive=adaptive, lr=0.1, momentum=0.9) for m in (model, twin))
    scaler = torch.amp.GradScaler("cpu", growth_interval=2, enabled=enabled)
    for batch in batches(5, dtype=torch.float32):
        scaler.scale(loss_of(model, batch)).backward()
        optimizer.first_step(zero_grad=True)
        scaler.scale(loss_of(model, batch)).backward()
        if unscaled_by_hand:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        two_passes(other, lambda batch=batch: loss_of(twin, batch))
        assert same(model, twin)
    assert scaler.get_scale() == (2.0**18 if enabled else 1.0)


def scaled_passes(model, optimizer, scaler, batch, spoil=()):
    for number in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, batch)
        scaler.scale(loss * math.inf if number in spoil else loss).backward()
        if number == 0:
            optimizer.first_step(zero_grad=True)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


@pytest.mark.parametrize("spoil", [{1}, {0, 1}])
def test_infinite_gradients_skip_the_step_and_the_weights_come_back(spoil):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    optimizer = SAM(model.parameters(), SGD, rho=0.5, lr=0.1, momentum=0.9, freeze_statistics=model)
    scaler = torch.amp.GradScaler("cpu")
    first, second, third = batches(3, dtype=torch.float32)
    scaled_passes(model, optimizer, scaler, first)
    before, momentum = weights_of(model), optimizer.state[model[0].weight]["momentum_buffer"].clone()
    scaled_passes(model, optimizer, scaler, second, spoil)
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), before, strict=True))
    assert torch.equal(optimizer.state[model[0].weight]["momentum_buffer"], momentum)
    assert scaler.get_scale() == 2.0**15
    assert model[1].num_batches_tracked == 2
    scaled_passes(model, optimizer, scaler, third)
    assert not any(torch.equal(p, w) for p, w in zip(model.parameters(), before, strict=True) if p is not model[0].bias)
    assert all(p.isfinite().all() for p in model.parameters())


def test_an_infinite_first_gradient_alone_gives_the_base_step():
    model, twin = net(dtype=torch.float32), net(dtype=torch.float32)
    optimizer, base = SAM(model.parameters(), SGD, rho=0.5, lr=0.1), SGD(twin.parameters(), lr=0.1)
    (batch,) = batches(1, dtype=torch.float32)
    scaled_passes(model, optimizer, torch.amp.GradScaler("cpu"), batch, {0})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(twin, batch)
    loss.backward()
    base.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_clipping_under_a_grad_scaler():
    model, twin = net(dtype=torch.float32), net(dtype=torch.float32)
    optimizer, other = (SAM(m.parameters(), SGD, rho=0.5, lr=0.1) for m in (model, twin))
    scaler, (batch,) = torch.amp.GradScaler("cpu"), batches(1, dtype=torch.float32)
    scaler.scale(loss_of(model, batch)).backward()
    optimizer.first_step(zero_grad=True)
    scaler.scale(loss_of(model, batch)).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    scaler.step(optimizer)
    loss_of(twin, batch).backward()
    other.first_step(zero_grad=True)
    loss_of(twin, batch).backward()
    nn.utils.clip_grad_norm_(twin.parameters(), 0.01)
    other.second_step()
    assert same(model, twin)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("adaptive", [False, True])
def test_on_cuda_as_on_the_cpu_and_with_float16(adaptive):
    model, twin = net(), net().cuda()
    train(model, SAM(model.parameters(), SGD, rho=0.5, adaptive=adaptive, lr=0.1, momentum=0.9), 3)
    optimizer = SAM(twin.parameters(), SGD, rho=0.5, adaptive=adaptive, lr=0.1, momentum=0.9)
    for x, y in batches(3):
        two_passes(optimizer, lambda x=x, y=y: loss_of(twin, (x.cuda(), y.cuda())))
    torch.testing.assert_close([w.cpu() for w in weights_of(twin)], weights_of(model), rtol=1e-9, atol=1e-12)

    half, scaler = net(dtype=torch.float32).cuda(), torch.amp.GradScaler("cuda", init_scale=2.0**40)
    optimizer, before = SAM(half.parameters(), SGD, rho=0.5, adaptive=adaptive, lr=0.1), weights_of(half)
    for number in range(30):  # the scale is too great at first: those steps are skipped
        for x, y in batches(1, dtype=torch.float32):
            for first in (True, False):
                with torch.autocast("cuda", dtype=torch.float16):
                    loss = loss_of(half, (x.cuda(), y.cuda()))
                scaler.scale(loss).backward()
                if first:
                    optimizer.first_step(zero_grad=True)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        if number == 0:
            assert all(torch.equal(p, w) for p, w in zip(half.parameters(), before, strict=True))
    assert not torch.equal(half[0].weight, before[0])
    assert all(p.isfinite().all() for p in half.parameters())
