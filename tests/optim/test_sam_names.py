"""Base optimizers with a `rho` or `adaptive` of their own."""

import copy

import pytest
import torch
from loops import batches, loss_of, net, same, two_passes
from torch import nn
from torch.optim import Adadelta

from saal_fast import SAM


class Adaptive(torch.optim.SGD):
    """An optimizer with a setting that SAM has too, of another type."""

    def __init__(self, params, lr=0.1, adaptive="slow"):
        super().__init__(params, lr=lr)
        self.defaults["adaptive"] = adaptive
        for group in self.param_groups:
            group.setdefault("adaptive", adaptive)


def moved_by(optimizer, p):
    before = p.detach().clone()
    p.grad = torch.tensor([3.0, 4.0], dtype=p.dtype)
    optimizer.first_step()
    step = p.detach() - before
    optimizer.restore()
    return step


def test_the_first_step_is_sams_radius_long():
    p = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    step = moved_by(SAM([p], Adadelta), p)
    torch.testing.assert_close(step, 0.05 * torch.tensor([0.6, 0.8], dtype=torch.float64), rtol=1e-14, atol=1e-16)
    step = moved_by(SAM([p], Adadelta, rho=0.5), p)
    torch.testing.assert_close(step, 0.5 * torch.tensor([0.6, 0.8], dtype=torch.float64), rtol=1e-14, atol=1e-16)


def test_each_name_in_a_group_is_one_optimizers():
    ps = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    groups = [{"params": [ps[0]], "rho": 0.8}, {"params": [ps[1]], "sam_rho": 0.4}]
    optimizer = SAM(groups, Adadelta, rho=0.1)
    optimizer.add_param_group({"params": [ps[2]], "sam_rho": 0.2, "adaptive": True})
    assert [(g["rho"], g["sam_rho"], g["adaptive"]) for g in optimizer.param_groups] == [
        (0.8, 0.1, False), (0.9, 0.4, False), (0.9, 0.2, True),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="expected a finite rho >= 0, got rho=-1"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "sam_rho": -1})


def test_the_steps_are_those_of_the_bases_own_rho():
    """With ρ = 0, SAM over Adadelta is Adadelta, decay and all."""
    model, twin = net(), net()
    optimizer = SAM([{"params": model.parameters(), "rho": 0.7}], Adadelta, rho=0.0, lr=0.5)
    other = Adadelta(twin.parameters(), lr=0.5, rho=0.7)
    for batch in batches(4):
        two_passes(optimizer, lambda batch=batch: loss_of(model, batch))
        other.zero_grad()
        loss_of(twin, batch).backward()
        other.step()
        assert same(model, twin)


def test_checkpoints_and_copies():
    model, twin = net(), net()
    optimizer = SAM([{"params": model.parameters(), "rho": 0.7, "sam_rho": 0.3}], Adadelta, lr=0.5)
    for batch in batches(2):
        two_passes(optimizer, lambda batch=batch: loss_of(model, batch))
    twin.load_state_dict(model.state_dict())
    other = SAM(twin.parameters(), Adadelta)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert (other.param_groups[0]["rho"], other.param_groups[0]["sam_rho"]) == (0.7, 0.3)
    for batch in batches(2, seed=5):
        two_passes(optimizer, lambda batch=batch: loss_of(model, batch))
        two_passes(other, lambda batch=batch: loss_of(twin, batch))
        assert same(model, twin)
    assert copy.deepcopy(other).param_groups[0]["sam_rho"] == 0.3
    other.load_state_dict(Adadelta(net().parameters(), rho=0.6).state_dict())  # the base's alone: SAM keeps its own
    assert (other.param_groups[0]["rho"], other.param_groups[0]["sam_rho"]) == (0.6, 0.05)


def test_a_setting_named_adaptive():
    p = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = SAM([p], Adaptive, rho=0.5, adaptive=True)
    assert optimizer.param_groups[0]["adaptive"] == "slow"
    assert optimizer.param_groups[0]["sam_adaptive"] is True
    w, g = p.detach().clone(), torch.tensor([3.0, 4.0])
    torch.testing.assert_close(moved_by(optimizer, p), 0.5 * w**2 * g / (w * g).norm())
