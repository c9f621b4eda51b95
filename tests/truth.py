"""What a score is, found without any engine: central finite differences, the model's own Parameter objects moved in place.

It shares nothing with the package: no `functional_call`, no function mode, no rule of `perturbation`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEP = 1e-6


class Truth(NamedTuple):
    """Of each sample, [N]."""

    loss: Tensor
    grad_norm: Tensor
    perturbed_loss: Tensor


def truth_of(
    make: Callable[[], nn.Module],
    pool: Tensor,
    rho: float = 0.05,
    *,
    norm: float = 2,
    adaptive: bool = False,
    params: Callable[[str], bool] = lambda name: True,
    forward: Callable[[nn.Module, Tensor], Tensor] = lambda model, x: model(x),
    differences: bool = True,
) -> Truth:
    """The scores of a pool [N, ...] by pseudo-labels.

    Args:
        make: makes the model, in float64, the same one each time; a fresh one is taken for each pass, so that nothing that a
            model keeps can reach the next pass.
        pool: inputs, float64.
        rho: radius of the ball.
        norm: p of the ball's norm.
        adaptive: the adaptive rule.
        params: which parameters are perturbed.
        forward: runs the model.
        differences: take the gradient by finite differences, else by autograd on a batch of one repeated.
    """

    def passed(x: Tensor, offsets: dict[str, Tensor]) -> Tensor:
        model = make().eval()
        for name, p in model.named_parameters():
            if name in offsets:
                p.data.add_(offsets[name])
        for module in model.modules():
            if hasattr(type(module), "refresh"):
                module.refresh()
        with torch.no_grad():
            return forward(model, x[None])

    def gradient(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        grads = {}
        for name, p in chosen.items():
            g = torch.zeros_like(p)
            for i in range(p.numel()):
                e = torch.zeros_like(p)
                e.view(-1)[i] = STEP
                up, down = (F.cross_entropy(passed(x, {name: s * e}), y) for s in (1, -1))
                g.view(-1)[i] = (up - down) / (2 * STEP)
            grads[name] = g
        return grads

    chosen = {n: p.detach().clone() for n, p in make().named_parameters() if p.requires_grad and params(n)}
    rows = []
    for x in pool:
        z = passed(x, {})
        y = z.argmax(1)
        grads = gradient(x, y) if differences else _by_autograd(make, forward, x, y, chosen)
        flat = torch.cat([g.flatten() for g in grads.values()])
        w = torch.cat([p.flatten() for p in chosen.values()])
        if adaptive:
            dual = (w * flat).norm()
            step = rho * w**2 * flat / dual if dual > 0 else torch.zeros_like(flat)
        else:
            q = 1.0 if norm == float("inf") else norm / (norm - 1)
            dual = flat.norm(q)
            step = rho * flat.sign() * (flat.abs() / dual) ** (q - 1) if dual > 0 else torch.zeros_like(flat)
        pieces = step.split([p.numel() for p in chosen.values()])
        moved = {n: e.view_as(p) for (n, p), e in zip(chosen.items(), pieces, strict=True)}
        rows.append((F.cross_entropy(z, y), dual, F.cross_entropy(passed(x, moved), y)))
    return Truth(*(torch.stack(column) for column in zip(*rows, strict=True)))


def _by_autograd(make, forward, x, y, chosen):
    model = make().eval()
    with torch.enable_grad():
        loss = F.cross_entropy(forward(model, x[None]), y)
    own = {n: p for n, p in model.named_parameters() if n in chosen}
    found = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(own.items(), found, strict=True)}


def assert_true(scores, truth: Truth, rtol: float = 2e-6, atol: float = 1e-8) -> None:
    """Holds `Scores` to the truth."""
    for name in ("loss", "grad_norm", "perturbed_loss"):
        torch.testing.assert_close(
            getattr(scores, name), getattr(truth, name), rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )
