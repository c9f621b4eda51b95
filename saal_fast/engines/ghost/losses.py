"""Label, loss and what is differentiated, of one sample's output."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ...ops.cross_entropy import cross_entropy
from ...tasks import Task, class_logits
from ..problem import Problem, constant, loss_scale


class LabelledLoss(NamedTuple):
    """One sample's label and loss, ready for backward.

    Attributes:
        label: given, or the pseudo-label; a batch of one.
        loss: `l(x, ŷ; θ)`; 0-d.
        root: where backward starts; 0-d. Its gradient is `scale` times the loss's.
        scale: the loss scale; 0-d.
    """

    label: Any
    loss: Tensor
    root: Tensor
    scale: Tensor


def labelled_loss(problem: Problem, output: Any, label: Any | None, fused: bool) -> LabelledLoss:
    """Label and loss of a batch of one, and the root of its backward pass.

    Args:
        problem: what is scored.
        output: the model's.
        label: given; None for the pseudo-label.
        fused: whether one operation computes label, loss and slope (`Classification` only). The root then is `⟨z, dl/dz⟩`
            with a constant second factor, which is its gradient at the logits z: the graph holds no more of the loss.
    """
    if fused:
        z = class_logits(output)
        y, losses, slopes = cross_entropy(z.detach(), label)
        return LabelledLoss(y, losses[0], (z * slopes).sum(), loss_scale(losses[0]))
    y = constant(problem.task.pseudo_label(output)) if label is None else label
    loss = problem.task.loss(output, y)[0]
    scale = problem.loss_scale(loss)
    return LabelledLoss(y, loss, loss * scale, scale)


def loss_under(task: Task, output: Any, label: Any, fused: bool) -> Tensor:
    """The loss of a batch of one under a label; 0-d."""
    if fused:
        losses: Tensor = cross_entropy(class_logits(output), label)[1]
        return losses[0]
    return task.loss(output, label)[0]
