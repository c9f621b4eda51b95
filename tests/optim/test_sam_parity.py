"""SAM against an established implementation of it: pytorch-optimizer's, step by step."""

import pytest
import torch
from loops import SGD, Adam, batches, loss_of, net, two_passes
from torch import nn

from saal_fast import SAM

theirs = pytest.importorskip("pytorch_optimizer", reason="pytorch-optimizer is in the extra test")

PUSH = {"rtol": 4e-7, "atol": 1e-12}  # in double precision, but for their norm, which is rounded to single
STEPS = {"rtol": 1e-5, "atol": 2e-6}  # after some of them


def by_hand(optimizer, model, batch):
    two_passes(optimizer, lambda: loss_of(model, batch))


def by_closure(optimizer, model, batch):
    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        return loss

    closure()  # theirs wants the gradients at w to be there, ours takes them
    optimizer.step(closure)


def convolutional(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Tanh(), nn.Linear(3, 5, bias=False), nn.Linear(5, 3)
    ).double()


def groups(model):
    """Every second tensor with a radius, a rate and a form of its own."""
    first, second = list(model.parameters())[::2], list(model.parameters())[1::2]
    return [{"params": first}, {"params": second, "rho": 0.3, "adaptive": True, "lr": 0.02}]


@pytest.mark.parametrize("step", [by_hand, by_closure])
@pytest.mark.parametrize("make", [net, convolutional])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(
    ("base", "settings"),
    [
        (SGD, {"lr": 0.1}),
        (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-2, "nesterov": True}),
        (Adam, {"lr": 0.01}),
        (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    ],
)
def test_the_steps_are_those_of_pytorch_optimizer(step, make, adaptive, base, settings):
    ours, other = make(), make()
    mine = SAM(ours.parameters(), base, rho=0.7, adaptive=adaptive, **settings)
    established = theirs.SAM(other.parameters(), base, rho=0.7, adaptive=adaptive, **settings)
    for batch in batches(8):
        step(mine, ours, batch)
        step(established, other, batch)
        torch.testing.assert_close(list(ours.parameters()), list(other.parameters()), **STEPS)
    plain = make()
    nearly = SAM(plain.parameters(), base, rho=0.69, adaptive=adaptive, **settings)
    for batch in batches(8):
        step(nearly, plain, batch)
    with pytest.raises(AssertionError):  # the tolerance tells a radius of 0.69 from 0.7
        torch.testing.assert_close(list(plain.parameters()), list(other.parameters()), **STEPS)


def test_the_perturbation_is_that_of_pytorch_optimizer():
    for adaptive in (False, True):
        ours, other, plain = net(), net(), net()
        mine, established = (
            kind(m.parameters(), SGD, rho=0.7, adaptive=adaptive, lr=0.1) for kind, m in ((SAM, ours), (theirs.SAM, other))
        )
        (batch,) = batches(1)
        for optimizer, model in ((mine, ours), (established, other)):
            loss_of(model, batch).backward()
            optimizer.first_step(zero_grad=True)
        for a, b, w in zip(ours.parameters(), other.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a - w, b - w, **PUSH)
            assert not torch.equal(a, w)


def test_groups_of_their_own_radius_and_form_are_those_of_pytorch_optimizer():
    ours, other = net(), net()
    mine = SAM(groups(ours), SGD, rho=0.7, lr=0.1, momentum=0.9)
    established = theirs.SAM(groups(other), SGD, rho=0.7, lr=0.1, momentum=0.9)
    for batch in batches(8):
        by_hand(mine, ours, batch)
        by_hand(established, other, batch)
    torch.testing.assert_close(list(ours.parameters()), list(other.parameters()), **STEPS)
