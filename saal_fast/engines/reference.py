"""The definition: one sample at a time, plain autograd, Eq. 3 and Eq. 6 line by line. Every other engine is held to it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .._utils.rng import beside_others
from ..perturbation import epsilon
from ..pools import Batch
from .backward import gradients_in_order
from .draws import Access, Draws, own_generators
from .habits import SlowPaths
from .problem import Problem, Result, concatenate, constant, finite


class Reference:
    """Scores a batch by scoring each of its samples alone."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.generators = tuple(own_generators(problem.model))

    def __call__(self, batch: Batch) -> Result:
        """Scores a batch; see `Engine`."""
        return concatenate([score_one(self.problem, batch.slice(i, i + 1), self.generators) for i in range(batch.size)])

    def sample_bytes(self, example: Batch) -> int:
        return 0  # samples of a batch are scored one after the other


def score_one(problem: Problem, sample: Batch, generators: Iterable[Access]) -> Result:
    """`max_{‖ε‖≤ρ} l(x, ŷ; θ+ε)` of one sample, given as a batch of one; the result has B = 1.

    Both passes are the same function of θ: gradients are recorded in both, and random numbers are drawn again as they were.
    """
    rule, task = problem.rule, problem.task
    if problem.habits.aliased:
        theta = problem.own_parameters()
    else:
        theta = {name: p.detach().requires_grad_() for name, p in problem.params.items()}
    theirs = problem.habits.draws if beside_others() else None  # other threads may have moved the other generators
    draws = Draws(generators, problem.device, theirs)

    with torch.enable_grad(), problem.until_backward(theta):
        with SlowPaths(), problem.watch_last_layer() as last:
            output = problem.output(theta, sample)
        label = constant(task.pseudo_label(output)) if sample.labels is None else sample.labels  # ŷ
        loss = task.loss(output, label)  # l(x, ŷ; θ)
        scale = problem.loss_scale(loss[0])
        keep = bool(problem.habits.aliased)  # the graph of a view that the model itself keeps serves every sample
        grads = _gradient(loss[0] * scale, theta, keep)  # ∇l, in units of 1/scale
    with torch.no_grad():
        eps, norm = epsilon(rule, grads, theta)  # Eq. 3
        draws.rewind()
        with SlowPaths():
            perturbed_output = problem.output({name: (p + eps[name]).requires_grad_() for name, p in theta.items()}, sample)
        perturbed = task.loss(perturbed_output, label)  # Eq. 6: l(x, ŷ; θ + ε*)
        return Result(
            perturbed_loss=perturbed,
            loss=loss.detach(),
            grad_norm=(norm / scale)[None],
            label=label,
            perturbed_label=constant(task.pseudo_label(perturbed_output)),
            finite=(finite(output, loss) & finite(perturbed_output, perturbed))[None],
            embedding=last.gradient(output, label) if last else (),
        )


def _gradient(loss: Tensor, theta: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """∂loss/∂θ; zeros for parameters the loss does not depend on."""
    found: tuple[Tensor | None, ...] = (None,) * len(theta)
    if loss.requires_grad:
        root = gradients_in_order(loss)
        found = torch.autograd.grad(root, list(theta.values()), allow_unused=True, retain_graph=keep)
    return {
        name: torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g
        for (name, p), g in zip(theta.items(), found, strict=True)
    }
