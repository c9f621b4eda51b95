"""What SAM refuses, and what it says."""

import copy
import math

import pytest
import torch
from loops import SGD
from torch import nn

from saal_fast import SAM


def a_sam(**options):
    p = nn.Parameter(torch.ones(2))
    return SAM([p], SGD, lr=0.1, **options), p


@pytest.mark.parametrize("rho", [-0.1, math.nan, math.inf])
def test_a_radius_out_of_range(rho):
    with pytest.raises(ValueError, match=f"expected a finite rho >= 0, got rho={rho}"):
        a_sam(rho=rho)
    with pytest.raises(ValueError, match=f"expected a finite rho >= 0, got rho={rho}"):
        SAM([{"params": [nn.Parameter(torch.ones(1))], "rho": rho}], SGD, lr=0.1)
    optimizer, _ = a_sam()
    with pytest.raises(ValueError, match=f"expected a finite rho >= 0, got rho={rho}"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "rho": rho})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("rho", ["0.1", None, True])
def test_a_radius_that_is_no_number(rho):
    with pytest.raises(TypeError, match="expected rho to be a number"):
        a_sam(rho=rho)


def test_adaptive_that_is_no_bool():
    with pytest.raises(TypeError, match="expected adaptive to be True or False, got 'yes'"):
        a_sam(adaptive="yes")


@pytest.mark.parametrize("base", [SGD([nn.Parameter(torch.ones(1))], lr=0.1), nn.Linear, "SGD", None, lambda p: p])
def test_a_base_that_is_no_class_of_optimizers(base):
    with pytest.raises(TypeError, match="expected base_optimizer to be a class of optimizers"):
        SAM([nn.Parameter(torch.ones(1))], base, lr=0.1)


def test_a_base_that_needs_a_closure():
    with pytest.raises(TypeError, match="expected a base_optimizer that steps without a closure; LBFGS needs one"):
        SAM([nn.Parameter(torch.ones(1))], torch.optim.LBFGS)


def test_settings_that_the_base_does_not_know():
    with pytest.raises(TypeError, match="unexpected keyword argument 'betas'"):
        a_sam(betas=(0.9, 0.99))


def test_freeze_statistics_that_is_no_module():
    with pytest.raises(TypeError, match="expected freeze_statistics to be a module or None, got bool"):
        a_sam(freeze_statistics=True)


def test_no_parameters():
    with pytest.raises(ValueError, match="empty parameter list"):
        SAM([], SGD, lr=0.1)


def test_steps_out_of_order():
    optimizer, p = a_sam()
    with pytest.raises(RuntimeError, match="expected first_step before second_step"):
        optimizer.second_step()
    with pytest.raises(RuntimeError, match=r"expected a closure, or first_step before step\(\)"):
        optimizer.step()
    with pytest.raises(TypeError, match="expected closure to be a function, got float"):
        optimizer.step(0.5)
    p.grad = torch.ones(2)
    optimizer.first_step()
    moved = p.detach().clone()
    attempts = [
        optimizer.first_step,
        lambda: optimizer.step(lambda: None),
        lambda: optimizer.load_state_dict({}),
        lambda: copy.deepcopy(optimizer),
    ]
    for attempt in attempts:
        with pytest.raises(RuntimeError, match="perturbed by first_step; expected second_step or restore before"):
            attempt()
    assert torch.equal(p, moved)
    optimizer.second_step()
    with pytest.raises(RuntimeError, match="expected first_step before second_step"):
        optimizer.second_step()


def test_a_missing_backward_pass():
    optimizer, p = a_sam()
    with pytest.raises(RuntimeError, match=r"no parameter has a gradient; expected loss.backward\(\) before first_step"):
        optimizer.first_step()
    with pytest.raises(RuntimeError, match=r"no parameter has a gradient; expected loss.backward\(\) before first_step"):
        optimizer.step(p.sum)
    p.grad = torch.ones(2)
    optimizer.first_step(zero_grad=True)
    with pytest.raises(RuntimeError, match=r"no parameter has a gradient; expected loss.backward\(\) after first_step"):
        optimizer.second_step()
    assert torch.equal(p, torch.ones(2))


def test_a_grad_scaler_takes_no_closure():
    optimizer, p = a_sam()
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(p.sum()).backward()
    with pytest.raises(RuntimeError, match="expected no closure with a GradScaler"):
        scaler.step(optimizer, lambda: None)
    assert torch.equal(p, torch.ones(2))
