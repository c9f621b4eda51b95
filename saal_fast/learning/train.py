"""The default training of a round: a new optimiser, some epochs, the strategy's hook."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from .._utils.checks import check_whole
from .._utils.progress import bar
from ..models.ambient import with_values
from ..models.features import device_of
from ..models.state import keep_statistics
from ..tasks import ChecksLabels, Classification, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim.lr_scheduler import LRScheduler

    from ..strategies import TrainingHook
    from .labelled import Labelled


def adam(groups: list[dict[str, Any]]) -> Optimizer:
    """Adam with a learning rate of 1e-3, the paper's (Section 4.1)."""
    return Adam(groups, lr=1e-3)


@dataclass(frozen=True)
class Training:
    """Trains a model on labelled samples; the defaults are the paper's (Section 4.1), batches of 10 its published code's.

    It draws from torch's global generator. Every step is `optimiser.step(closure)`, so optimisers that evaluate the loss
    more than once (SAM, L-BFGS) work too.

    Attributes:
        epochs: passes over the labelled samples.
        batch_size: largest number of samples per step; an epoch is split evenly, as batch norm fails on a last batch of one
            sample.
        optimiser: makes the optimiser from parameter groups: the model's, and the strategy's if it has parameters.
        scheduler: makes a scheduler from the optimiser, stepped after every epoch (`ReduceLROnPlateau` with the epoch's
            mean loss); or None.
        task: defines the loss of each sample, as for `saal_fast.score`.
        progress: as for `saal_fast.score`.
    """

    epochs: int = 50
    batch_size: int = 10
    optimiser: Callable[[list[dict[str, Any]]], Optimizer] = adam
    scheduler: Callable[[Optimizer], LRScheduler | ReduceLROnPlateau] | None = None
    task: Task = field(default_factory=Classification)
    progress: bool | None = None

    def __post_init__(self) -> None:
        """Checks the arguments.

        Raises:
            TypeError: a count is not a whole number, a function cannot be called, or the task lacks a method.
            ValueError: epochs < 0 or batch_size < 1.
        """
        check_whole("epochs", self.epochs, 0)
        check_whole("batch_size", self.batch_size, 1)
        if not callable(self.optimiser):
            raise TypeError(f"expected optimiser to be a function that makes one, got {self.optimiser!r}")
        if self.scheduler is not None and not callable(self.scheduler):
            raise TypeError(f"expected scheduler to be a function that makes one, or None; got {self.scheduler!r}")
        if isinstance(self.task, type) or not isinstance(self.task, Task):
            raise TypeError(f"expected task to be an object with methods pseudo_label and loss, got {self.task!r}")

    @with_values()  # Adam's counters, in older releases of torch
    def __call__(self, model: nn.Module, labelled: Labelled, hook: TrainingHook) -> dict[str, float]:
        """Trains `model` in place.

        Args:
            model: the model, in training mode.
            labelled: the samples it learns from.
            hook: the strategy's hook.

        Returns:
            `loss`, its mean over the last epoch; NaN for `epochs=0`.

        Raises:
            TypeError: `optimiser` does not make an optimiser, or a label has a type or shape that the task does not take.
            ValueError: a label is not one of the model's classes.
        """
        device = device_of(model)
        optimiser = self._new_optimiser(model, hook)
        scheduler = None if self.scheduler is None else self.scheduler(optimiser)
        steps = -(-len(labelled) // self.batch_size)
        total = float("nan")
        with bar(self.epochs * len(labelled), self.progress, "training") as shown:
            for epoch in range(self.epochs):
                hook.start_epoch(epoch, self.epochs)
                total = 0.0
                for positions in torch.randperm(len(labelled), device="cpu").tensor_split(steps):
                    batch, y = labelled.batch(positions, device)
                    x = batch.args[0] if len(batch.args) == 1 and not batch.kwargs else batch.kwargs or batch.args
                    try:
                        loss = _step(model, batch.args, batch.kwargs, x, y, optimiser, self.task, hook)
                    except _UnfitLabelsError as error:
                        kind = TypeError if isinstance(error.__cause__, TypeError) else ValueError
                        raise kind(_describe_unfit(error, labelled, self.task)) from error.__cause__
                    hook.after_step(x, y)
                    total += loss * batch.size
                    shown.update(batch.size)
                if isinstance(scheduler, ReduceLROnPlateau):
                    scheduler.step(total / len(labelled))
                elif scheduler is not None:
                    scheduler.step()
        return {"loss": total / len(labelled)}

    def _new_optimiser(self, model: nn.Module, hook: TrainingHook) -> Optimizer:
        groups: list[dict[str, Any]] = [{"params": [p for p in model.parameters() if p.requires_grad]}]
        own = hook.parameters()
        if own:
            groups.append({"params": own})
        optimiser = self.optimiser(groups)
        if not callable(getattr(optimiser, "step", None)):
            raise TypeError(f"expected optimiser to make an optimizer with a step, it made {type(optimiser).__name__}")
        return optimiser


class _UnfitLabelsError(Exception):
    """A label in a batch does not fit the model's output, which is the argument of this error."""


def _describe_unfit(error: _UnfitLabelsError, labelled: Labelled, task: Task) -> str:
    """The error's message: which labels do not fit, by position in the pool, and how to correct them."""
    assert isinstance(task, ChecksLabels)
    bad = []
    for row, label in zip(labelled.rows.tolist(), labelled.labels.tensor_split(len(labelled)), strict=True):
        try:
            task.check_labels(label, error.args[0])
        except (TypeError, ValueError):  # noqa: PERF203 - label by label
            bad.append(f"sample {row} has {label[0].tolist()}")
    more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
    if isinstance(error.__cause__, TypeError):
        return (
            f"{error.__cause__}; of the pool {', '.join(bad[:10])}{more}. ActiveLearner.correct(indices, labels) with all "
            'labels replaces them; after saal_fast.learning.rewind(folder, round, "tell") they can be given anew'
        )
    what = str(error.__cause__).partition(";")[0]
    return f"{what}; of the pool {', '.join(bad[:10])}{more}. ActiveLearner.correct(indices, labels) replaces these labels"


def _step(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    x: Any,
    y: Tensor,
    optimiser: Optimizer,
    task: Task,
    hook: TrainingHook,
) -> float:
    """Takes one step of the optimiser and returns the task's loss before it."""
    first: list[float] = []  # of the closure's calls

    def closure() -> Tensor:
        optimiser.zero_grad()
        with keep_statistics(model) if first else nullcontext():
            loss, task_loss = _loss(model(*args, **kwargs), x, y, task, hook)
            torch.autograd.backward(loss)
        first.append(task_loss)
        return loss

    optimiser.step(closure)  # type: ignore[arg-type] # torch says float, and takes what its own optimisers take: a tensor
    return first[0]


def _loss(output: Any, x: Any, y: Tensor, task: Task, hook: TrainingHook) -> tuple[Tensor, float]:
    """The loss to minimise, with its graph, and the task's part of it as a number."""
    if isinstance(task, ChecksLabels):
        try:
            task.check_labels(y, output)
        except (TypeError, ValueError) as error:
            raise _UnfitLabelsError(output) from error
    losses = task.loss(output, y)
    own, mean = hook.loss(x, y, losses), losses.mean()
    return mean if own is None else mean + own, float(mean.detach())
