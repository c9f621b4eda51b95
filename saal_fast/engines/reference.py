"""The definition: one sample at a time, plain autograd, Eq. 3 and Eq. 6 line by line. Every other engine is held to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..perturbation import epsilon
from ..pools import Batch
from .problem import Problem, Result, constant, finite, gain, join


class Reference:
    """Scores a batch by scoring each of its samples alone."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def __call__(self, batch: Batch, labels: Any | None) -> Result:
        rows = []
        for i in range(batch.size):
            args, kwargs, label = tree_map(
                lambda t: t[i : i + 1] if isinstance(t, Tensor) else t,  # noqa: B023 - used within this turn
                (batch.args, batch.kwargs, labels),
            )
            rows.append(score_one(self.problem, args, kwargs, label))
        loss, perturbed, norm, finites = (
            torch.cat([getattr(row, name) for row in rows]) for name in ("loss", "perturbed_loss", "grad_norm", "finite")
        )
        labels, perturbed_labels = join([row.label for row in rows]), join([row.perturbed_label for row in rows])
        return Result(perturbed, loss, norm, labels, perturbed_labels, finites)

    def sample_bytes(self, example: Batch) -> int:
        return 0  # samples of a batch are scored one after the other


def score_one(problem: Problem, args: tuple[Any, ...], kwargs: dict[str, Any], label: Any | None) -> Result:
    """`max_{‖ε‖≤ρ} l(x, ŷ; θ+ε)` of one sample, given as a batch of one.

    Args:
        problem: model, parameters, rule and task.
        args: positional inputs of the model, each [1, ...].
        kwargs: keyword inputs, each [1, ...].
        label: the sample's label [1, ...], or None for the pseudo-label.

    Returns:
        A `Result` with B = 1.
    """
    rule, task = problem.rule, problem.task
    theta = {name: p.detach().requires_grad_() for name, p in problem.params.items()}

    with torch.enable_grad():
        output = problem.output(theta, args, kwargs)
        if label is None:
            label = constant(task.pseudo_label(output))  # ŷ
        loss = task.loss(output, label)  # l(x, ŷ; θ)
        scale = gain(loss[0])
        grads = _gradient(loss[0] * scale, theta)  # ∇l, in units of 1/scale
    with torch.no_grad():
        eps, norm = epsilon(rule, grads, theta)  # Eq. 3
        moved = problem.output({name: p + eps[name] for name, p in theta.items()}, args, kwargs)
        perturbed = task.loss(moved, label)  # Eq. 6: l(x, ŷ; θ + ε*)
        return Result(
            perturbed_loss=perturbed,
            loss=loss.detach(),
            grad_norm=(norm / scale)[None],
            label=label,
            perturbed_label=task.pseudo_label(moved),
            finite=(finite(output, loss) & finite(moved, perturbed))[None],
        )


def _gradient(loss: Tensor, theta: dict[str, Tensor]) -> dict[str, Tensor]:
    """∂loss/∂θ; zeros for parameters the loss does not depend on."""
    found: tuple[Tensor | None, ...] = (None,) * len(theta)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, list(theta.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g
        for (name, p), g in zip(theta.items(), found, strict=True)
    }
