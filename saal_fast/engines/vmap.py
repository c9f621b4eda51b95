"""`torch.func.vmap` over whole per-sample gradients: simple, and as wide as memory allows (a gradient a sample)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.utils._pytree import tree_map

from ..models.memory import nbytes
from ..perturbation import epsilon
from ..pools import Batch
from .branches import by_branches
from .layers import Rewritten
from .problem import Problem, Result, constant, finite, gain, settled


class Vmap:
    """Scores a batch by one vmapped gradient and one vmapped forward pass with a copy of the parameters a sample."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def __call__(self, batch: Batch, labels: Any | None) -> Result:
        """Score a batch; see `Engine`."""
        return by_branches(lambda *part: over_samples(self._one, *part), batch, labels)

    def sample_bytes(self, example: Batch) -> int:
        return 4 * nbytes(self.problem.params.values())  # gradient, step, moved weights, and one in the making

    def _one(self, args: tuple[Any, ...], kwargs: dict[str, Any], label: Any | None) -> Result:
        problem, rule, task = self.problem, self.problem.rule, self.problem.task

        def loss_of(params: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor, Any, Tensor]]:
            output = problem.output(params, args, kwargs)
            y = constant(task.pseudo_label(output)) if label is None else label
            loss = task.loss(output, y)[0]
            scale = gain(loss)
            return loss * scale, (loss, scale, y, finite(output, loss))

        grads, (_, (loss, scale, y, first_finite)) = grad_and_value(loss_of, has_aux=True)(problem.params)
        eps, norm = epsilon(rule, grads, problem.params)
        moved = problem.output({name: p + eps[name] for name, p in problem.params.items()}, args, kwargs)
        perturbed = task.loss(moved, y)[0]
        return Result(
            settled(perturbed, loss, norm * rule.rho),
            loss,
            norm / scale,
            y,
            task.pseudo_label(moved),
            first_finite & finite(moved, perturbed),
        )


def over_samples(one: Any, batch: Batch, labels: Any | None) -> Result:
    """`vmap` of `one(args, kwargs, label)`, written for a batch of one sample, over a batch.

    Labels in `one`'s result keep their dimension of one, which is taken off here.
    """

    def of_one(args: tuple[Any, ...], kwargs: dict[str, Any], label: Any | None) -> Result:
        args, kwargs, label = tree_map(lambda t: t.unsqueeze(0) if isinstance(t, Tensor) else t, (args, kwargs, label))
        result: Result = one(args, kwargs, label)
        label, perturbed_label = tree_map(lambda t: t.squeeze(0), (result.label, result.perturbed_label))
        return result._replace(label=label, perturbed_label=perturbed_label)

    inputs = (batch.args, batch.kwargs, labels)
    in_dims = tree_map(lambda t: 0 if isinstance(t, Tensor) else None, inputs)
    with Rewritten():
        scored: Result = vmap(of_one, in_dims=in_dims)(*inputs)
    return scored
