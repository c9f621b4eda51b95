"""`torch.func.vmap` over whole per-sample gradients: simple, and as wide as memory allows (a gradient a sample)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.utils._pytree import tree_map

from ..models.memory import nbytes
from ..perturbation import epsilon
from ..pools import Batch
from . import replacements  # noqa: F401 - registers them
from .backward import gradients_in_order
from .branches import Splits
from .functions import RunAgain
from .problem import EngineError, Problem, Result, constant, finite, keep_loss_where_no_step
from .under_vmap import Births, SharedWrite, UnderVmap

T = TypeVar("T")


class FirstPass(NamedTuple):
    """What a sample's first pass finds.

    Attributes:
        loss: plain loss; 0-d.
        scale: what the loss is multiplied by before backward; 0-d.
        label: the label it was taken under, with a dimension of one.
        finite: whether output and loss are; 0-d.
        embedding: gradient by the last linear layer as factors, where the problem asks for it; else empty.
    """

    loss: Tensor
    scale: Tensor
    label: Any
    finite: Tensor
    embedding: tuple[Tensor, ...]


class Vmap:
    """Scores a batch by one vmapped gradient and one vmapped forward pass with a copy of the parameters a sample."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.births, self.splits = problem, Births(problem.findings.sites), Splits()

    def __call__(self, batch: Batch) -> Result:
        """Scores a batch; see `Engine`."""
        check_batches(self.problem)
        return self.splits.score(lambda part: over_samples(self._one, part, self.births), batch)

    def sample_bytes(self, example: Batch) -> int:
        return 4 * nbytes(self.problem.params.values())  # gradient, step, perturbed weights, and one in the making

    def _one(self, sample: Batch) -> Result:
        problem, rule, task, held = self.problem, self.problem.rule, self.problem.task, ExitStack()

        def loss_of(params: dict[str, Tensor]) -> tuple[Tensor, FirstPass]:
            held.enter_context(problem.until_backward(params))
            with problem.watch_last_layer() as last:
                output = problem.output(params, sample)
            y = constant(task.pseudo_label(output)) if sample.labels is None else sample.labels
            loss = task.loss(output, y)[0]
            scale = problem.loss_scale(loss)
            embedding = last.gradient(output, y) if last else ()
            return gradients_in_order(loss * scale), FirstPass(loss, scale, y, finite(output, loss), embedding)

        first: FirstPass
        with held:
            grads, (_, first) = grad_and_value(loss_of, has_aux=True)(problem.params)
        eps, norm = epsilon(rule, grads, problem.params)
        output = perturbed_output(problem, {name: p + eps[name] for name, p in problem.params.items()}, sample)
        perturbed = task.loss(output, first.label)[0]
        return Result(
            keep_loss_where_no_step(perturbed, first.loss, norm * rule.rho),
            first.loss,
            norm / first.scale,
            first.label,
            task.pseudo_label(output),
            first.finite & finite(output, perturbed),
            first.embedding,
        )


def check_batches(problem: Problem) -> None:
    """Raises EngineError where a batch's samples must run one after the other."""
    reason = problem.habits.reason_for_one_by_one()
    if reason is not None:
        raise EngineError(reason)


def perturbed_output(problem: Problem, params: dict[str, Tensor], sample: Batch) -> Any:
    """The model's output after the step, in a transform that records a graph where it takes gradients itself."""
    if not problem.habits.differentiates:
        return problem.output(params, sample)

    zero = next(iter(problem.params.values())).new_zeros(())
    made: Any = torch.func.vjp(lambda zero: (zero, problem.output(params, sample)), zero, has_aux=True)
    return made[2]


def over_samples(score_one: Callable[[Batch], Result], batch: Batch, births: Births) -> Result:
    """`vmap` of `score_one`, written for a batch of one sample, over a batch.

    Labels and embeddings in `score_one`'s result keep their dimension of one, which is taken off here.

    Args:
        score_one: scores a batch of one.
        batch: what is scored.
        births: what is known of tensors that samples write into; more may become known.
    """

    def squeezed(sample: Batch) -> Result:
        result = score_one(sample)
        label, perturbed_label, embedding = tree_map(
            lambda t: t.squeeze(0), (result.label, result.perturbed_label, result.embedding)
        )
        return result._replace(label=label, perturbed_label=perturbed_label, embedding=embedding)

    return for_each(squeezed, batch, births)


def for_each(function: Callable[[Batch], T], batch: Batch, births: Births) -> T:
    """`vmap` of a function of a batch of one sample over a batch; its results are pytrees of tensors."""

    def of_one(args: tuple[Any, ...], kwargs: dict[str, Any], labels: Any | None) -> T:
        mode.see((args, kwargs))
        return function(Batch(args, kwargs, 1, batch.start, labels).map(lambda t: t.unsqueeze(0)))

    inputs = (batch.args, batch.kwargs, batch.labels)
    in_dims = tree_map(lambda t: 0 if isinstance(t, Tensor) else None, inputs)
    try:
        with UnderVmap(births) as mode:
            results: T = vmap(of_one, in_dims=in_dims)(*inputs)
    except (SharedWrite, RunAgain):  # each place, and each class of functions, causes one at most
        return for_each(function, batch, births)
    births.watching = False
    return results
