"""Tasks: what the pseudo-label and the per-sample loss of a model's output are.

A `Task` has two methods. `Classification` is the default; a regression, a tagger or a detector is a class of a few lines:

    class Boxes:                                      # sum of cross-entropies over an image's boxes
        def pseudo_label(self, output):               # output["logits"]: [B, boxes, C]
            return output["logits"].argmax(-1)        # [B, boxes]
        def loss(self, output, label):
            return F.cross_entropy(output["logits"].mT, label, reduction="none").sum(1)  # [B]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Task(Protocol):
    """Pseudo-label and loss of a batch of outputs. Both methods are called under `vmap`, on batches of one.

    A label may be any pytree (dict, list, tuple) of tensors whose first dimension is the batch. No gradient flows into it.
    """

    def pseudo_label(self, output: Any) -> Any:
        """ŷ, the model's own prediction."""
        ...

    def loss(self, output: Any, label: Any) -> Tensor:
        """The loss of each sample under `label`; shape [B]."""
        ...


@runtime_checkable
class ChecksLabels(Protocol):
    """A task that checks given labels before scoring."""

    def check_labels(self, labels: Any, output: Any) -> None:
        """Raises ValueError or TypeError if `labels` do not fit outputs like this one."""
        ...


def logits_of(output: Any) -> Tensor:
    """The logits in a model's output: a tensor, the first of a tuple, `["logits"]` or `.logits` (Hugging Face).

    Raises:
        TypeError: the output holds no logits.
    """
    if isinstance(output, Tensor):
        return output
    found = getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output["logits"] if "logits" in output else next(iter(output.values()), None)
    elif found is None and isinstance(output, (tuple, list)) and output:
        found = output[0]
    if not isinstance(found, Tensor):
        raise TypeError(
            "expected the model to return logits: a tensor, a tuple that starts with one, a mapping with 'logits', or an "
            f"object with .logits; got {type(output).__name__}. For anything else pass task= with your own loss"
        )
    return found


def tensors_of(output: Any) -> list[Tensor]:
    """The floating-point tensors in an output; in an unknown object only its `.logits`."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        return [t for value in output.values() for t in tensors_of(value)]
    if isinstance(output, (tuple, list)):
        return [t for value in output for t in tensors_of(value)]
    logits = getattr(output, "logits", None)
    return tensors_of(logits) if isinstance(logits, Tensor) else []


def class_logits(output: Any) -> Tensor:
    """The logits [B, C] in a classifier's output; half precision is widened to fp32.

    Raises:
        TypeError: the output holds no logits.
        ValueError: the logits have another shape or type.
    """
    z = logits_of(output)
    if z.ndim != 2 or z.shape[1] < 2 or not z.is_floating_point():
        raise ValueError(
            f"expected logits [B, C] with C >= 2 classes, got {z.dtype} {list(z.shape)}. "
            "For another kind of output pass task= with your own pseudo-label and loss"
        )
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z


class Classification:
    """Cross-entropy over C classes; the pseudo-label is the argmax (paper, Section 2.1).

    The loss of class y is computed as `log(1 + Σ_{j≠y} exp(z_j - z_y))`. This is the cross-entropy, but loss and gradient
    keep their precision where the model is nearly certain; fp32 `-log softmax` would round all of these losses to 0 and lose
    the order of confident samples. Half-precision logits are widened to fp32 first.
    """

    def pseudo_label(self, output: Any) -> Tensor:
        """The class of the largest logit; int64 [B]."""
        return class_logits(output).argmax(1)

    def loss(self, output: Any, label: Tensor) -> Tensor:
        """Cross-entropy of each sample; [B]."""
        z = class_logits(output)
        others = (z - z.gather(1, label[:, None])).scatter(1, label[:, None], -torch.inf)
        rest = others.logsumexp(1)
        return torch.logaddexp(rest, torch.zeros_like(rest))

    def check_labels(self, labels: Any, output: Any) -> None:
        """Checks that given labels are integers [N] in [0, C)."""
        classes = class_logits(output).shape[1]
        if not isinstance(labels, Tensor):
            raise TypeError(f"expected labels as integers of shape [N], got {type(labels).__name__}")
        if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise TypeError(f"expected labels as integers of shape [N], got {labels.dtype} {list(labels.shape)}")
        outside = ((labels < 0) | (labels >= classes)).nonzero()[:, 0]
        if len(outside):
            first = ", ".join(f"labels[{i}] = {labels[i].item()}" for i in outside[:5].tolist())
            raise ValueError(f"expected labels in [0, {classes}), the model's classes; got {len(outside)} outside: {first}")


def logit_gradient(logits: Tensor, label: Tensor | None = None) -> Tensor:
    """The cross-entropy's gradient by the logits, `softmax(z) - onehot(y)`; [N, C].

    The label's own entry is minus the sum of the others, and keeps its digits where the model is nearly certain.

    Args:
        logits: z [N, C].
        label: y [N]; None for the pseudo-label, argmax z.
    """
    own = logits.argmax(1, keepdim=True) if label is None else label[:, None]
    others = logits.softmax(1).scatter(1, own, 0.0)
    return others.scatter(1, own, -others.sum(1, keepdim=True))
