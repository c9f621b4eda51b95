"""Norms p near 1, whose dual exponents q are large, against logarithms in float64, which neither under- nor overflow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import saal_fast

RHO = 0.05
NORMS = (1.0001, 1.02, 1.1, 1.3, 1.5, 3.0, math.inf)
RTOL = {torch.float32: 2e-4, torch.float64: 1e-9}  # float32: rounding of |g|, to the power of q


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.Tanh(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm, self.last = nn.Linear(12, 16), nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x.flatten(1).reshape(len(x), 6, 12)).relu()).mean(1))


def closed_form(model: nn.Module, x: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """‖g‖_q and the loss at `θ + ε` of one sample, in float64."""
    model, x = model.double(), x.double()[None]
    theta = {n: t.detach().requires_grad_() for n, t in model.named_parameters()}
    z = functional_call(model, theta, (x,))
    y = z.argmax(1)
    grads = torch.autograd.grad(nn.functional.cross_entropy(z, y), list(theta.values()))
    g = torch.cat([t.flatten() for t in grads])
    logs = (g.abs() / g.abs().max()).log()
    if math.isinf(p):
        norm, eps = g.abs().sum(), RHO * g.sign()
    else:
        q = p / (p - 1)
        log_norm = (q * logs).logsumexp(0) / q
        norm, eps = log_norm.exp() * g.abs().max(), RHO * g.sign() * ((q - 1) * (logs - log_norm)).exp()
    moved, at = {}, 0
    for name, t in theta.items():
        moved[name], at = t.detach() + eps[at : at + t.numel()].view_as(t), at + t.numel()
    return norm, nn.functional.cross_entropy(functional_call(model, moved, (x,)), y).detach()


@pytest.mark.parametrize("build", [convolutional, Tokens])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("engine", "p"),
    [
        *(("ghost", p) for p in NORMS),
        *((engine, NORMS[0]) for engine in ("vmap", "reference")),
        *(pytest.param(engine, p, marks=pytest.mark.slow) for engine in ("vmap", "reference") for p in NORMS[1:]),
    ],
)
def test_norm_and_step_are_the_closed_form(engine: str, dtype: torch.dtype, build: type[nn.Module], p: float) -> None:
    x = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(3))
    found = saal_fast.score(build().to(dtype), x.to(dtype), RHO, norm=p, engine=engine, details=True)
    for i, sample in enumerate(x):
        norm, perturbed = closed_form(build(), sample, p)
        torch.testing.assert_close(found.grad_norm[i].double(), norm, rtol=RTOL[dtype], atol=0)
        torch.testing.assert_close(found.perturbed_loss[i].double(), perturbed, rtol=RTOL[dtype], atol=RTOL[dtype] * 1e-2)


@pytest.mark.parametrize("p", [1.0 + 2.0**-52, 1.0 + 1e-9])
def test_in_the_limit_the_largest_element_takes_the_whole_step(p: float) -> None:
    weights = torch.tensor([[1.0, 2.0, -3.0]], dtype=torch.float64)
    eps, norm = saal_fast.perturbation.epsilon(saal_fast.perturbation.make(RHO, p), {"w": weights}, {"w": weights})
    torch.testing.assert_close(norm.item(), 3.0, rtol=1e-9, atol=0)
    torch.testing.assert_close(eps["w"], torch.tensor([[0.0, 0.0, -RHO]], dtype=torch.float64), rtol=1e-9, atol=1e-12)
