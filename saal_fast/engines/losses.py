"""Label, loss and what is differentiated, of one sample's output."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..objectives import Task, class_logits
from ..ops.cross_entropy import cross_entropy
from .problem import constant, gain


def labelled(task: Task, output: Any, label: Any | None, fused: bool) -> tuple[Any, Tensor, Tensor, Tensor]:
    """Label and loss of a batch of one, and a number whose gradient is the loss's, brought into range by a factor.

    Args:
        task: pseudo-label and loss.
        output: the model's.
        label: given; None for the pseudo-label.
        fused: whether `Classification` is the task, and taken in one pass. What is differentiated then is `⟨z, dl/dz⟩` with
            the second factor constant, whose gradient at the logits z is that factor: the graph holds no more of the loss.

    Returns:
        The label; and, 0-d, the loss, what to differentiate, and the factor by which its gradient is the loss's.
    """
    if fused:
        z = class_logits(output)
        y, losses, slopes = cross_entropy(z.detach(), label)
        return y, losses[0], (z * slopes).sum(), gain(losses[0])
    y = constant(task.pseudo_label(output)) if label is None else label
    loss = task.loss(output, y)[0]
    scale = gain(loss)
    return y, loss, loss * scale, scale


def loss_under(task: Task, output: Any, label: Any, fused: bool) -> Tensor:
    """The loss of a batch of one under a label; 0-d."""
    if fused:
        losses: Tensor = cross_entropy(class_logits(output), label)[1]
        return losses[0]
    return task.loss(output, label)[0]
