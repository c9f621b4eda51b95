"""SAM under Lightning's manual optimisation and under accelerate: plain SAM's steps, and weights at w after a failure."""

import pytest
import torch
from loops import SGD, batches, loss_of, net, same, two_passes, weights_of
from wrappers import AcceleratedOptimizer, CopyingLightningOptimizer, LightningOptimizer, Strategy

from saal_fast import SAM

PROXIES = [LightningOptimizer, CopyingLightningOptimizer]


def sam(model):
    return SAM(model.parameters(), SGD, rho=0.3, lr=0.1, momentum=0.9, freeze_statistics=model)


def by_hand(wrapped, model, batch):
    loss_of(model, batch).backward()
    wrapped.first_step(zero_grad=True)
    loss_of(model, batch).backward()
    wrapped.second_step(zero_grad=True)


def by_step(wrapped, model, batch):
    loss_of(model, batch).backward()
    wrapped.first_step(zero_grad=True)
    loss_of(model, batch).backward()
    wrapped.step()
    wrapped.zero_grad()


def by_closure(wrapped, model, batch):
    def closure():
        loss = loss_of(model, batch)
        loss.backward()
        return loss

    assert wrapped.step(closure).item() == model.first_loss


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("way", [by_hand, by_step, by_closure])
def test_lightning_changes_no_bit(proxy, way):
    model, twin = net(), net()
    strategy, other = Strategy(), sam(twin)
    wrapped = proxy(sam(model), strategy)
    for batch in batches(4):
        model.first_loss = loss_of(model, batch).item()
        way(wrapped, model, batch)
        two_passes(other, lambda batch=batch: loss_of(twin, batch))
        assert same(model, twin)
    copies = proxy is CopyingLightningOptimizer
    assert strategy.steps == (4 if copies or way is not by_hand else 0)  # the proxy's second_step is SAM's own
    assert strategy.hooks == strategy.steps * (2 if way is by_closure else 1)


@pytest.mark.parametrize("broken", ["optimizer_step", "_wrap_closure"])
def test_the_weights_are_back_after_a_failure_in_lightnings_step(broken):
    model, twin, strategy = net(), net(), Strategy()
    (batch,) = batches(1)
    wrapped = CopyingLightningOptimizer(sam(model), strategy)
    before = weights_of(model)

    def fail(*_, **__):
        raise OSError("the strategy failed")

    loss_of(model, batch).backward()
    wrapped.first_step()
    assert not torch.equal(before[0], next(model.parameters()))
    setattr(strategy, broken, fail)
    with pytest.raises(OSError, match="the strategy failed"):
        wrapped.second_step()
    assert all(map(torch.equal, before, model.parameters()))
    delattr(strategy, broken)
    wrapped.zero_grad()
    by_hand(wrapped, model, batch)  # and the next step is a plain one
    two_passes(sam(twin), lambda: loss_of(twin, batch))
    assert same(model, twin)


def test_the_weights_are_back_after_a_failure_of_the_base():
    model = net()
    (batch,) = batches(1)
    optimizer = sam(model)
    before = weights_of(model)
    loss_of(model, batch).backward()
    optimizer.first_step()

    def fail():
        raise KeyboardInterrupt

    optimizer.base_optimizer.step = fail
    with pytest.raises(KeyboardInterrupt):
        optimizer.second_step()
    assert all(map(torch.equal, before, model.parameters()))


def test_a_step_that_never_comes_leaves_the_weights_at_w():
    """An accumulating wrapper takes no step; `second_step` restores all the same."""
    model = net()
    (batch,) = batches(1)
    optimizer = sam(model)
    optimizer.step = lambda: None
    before = weights_of(model)
    loss_of(model, batch).backward()
    optimizer.first_step()
    optimizer.second_step()
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("scaled", [False, True])
def test_accelerate_changes_no_bit(scaled):
    model, twin = net(dtype=torch.float32), net(dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu") if scaled else None
    wrapped, other = AcceleratedOptimizer(sam(model), scaler), sam(twin)
    for batch in batches(3, dtype=torch.float32):
        for _ in range(2):
            loss = loss_of(model, batch)
            (scaler.scale(loss) if scaler else loss).backward()
            if not wrapped.optimizer._passes.perturbed:
                wrapped.optimizer.first_step(zero_grad=True)
        wrapped.step()
        wrapped.optimizer.zero_grad()
        two_passes(other, lambda batch=batch: loss_of(twin, batch))
        assert same(model, twin)
    assert not scaled or wrapped.called
