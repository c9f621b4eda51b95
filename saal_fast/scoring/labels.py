"""Labels that are given for a pool, instead of pseudo-labels."""

from __future__ import annotations

from numbers import Number
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from .._utils.arrays import as_tensor
from ..pools import Batch


class GivenLabels:
    """The labels given for a pool, or none."""

    def __init__(self, labels: Any | None, expected: int | None, device: torch.device) -> None:
        self.given = labels is not None
        self.labels: Any = tree_map(lambda t: _label(t, device), _as_pytree(labels)) if self.given else ()
        if expected is not None:
            self.check_length(expected)

    def check_length(self, expected: int) -> None:
        """Raises ValueError where there are more or fewer labels than samples."""
        for t in tree_leaves(self.labels):
            got = t.shape[0] if t.ndim else "one number"
            if got != expected:
                raise ValueError(f"expected labels for the pool's {expected} samples, got {got}")

    def attach(self, batch: Batch) -> Batch:
        """The batch with its labels, if any are given."""
        if not self.given:
            return batch
        end = batch.start + batch.size
        for t in tree_leaves(self.labels):
            if t.ndim == 0 or t.shape[0] < end:
                raise ValueError(f"expected labels for all of the pool's samples, got {list(t.shape)} for {end} or more")
        return batch.with_labels(tree_map(lambda t: t[batch.start : end], self.labels))


def _as_pytree(labels: Any) -> Any:
    """Labels as a pytree of arrays; a list of numbers, or of tensors that are single numbers, is one array."""
    if isinstance(labels, (list, tuple)) and all(isinstance(y, Number) or getattr(y, "ndim", None) == 0 for y in labels):
        return torch.as_tensor([y.item() if isinstance(y, Tensor) else y for y in labels], device="cpu")
    return labels


def _label(value: Any, device: torch.device) -> Tensor:
    """One array of labels on the device; whole numbers as int64, what torch's losses take."""
    try:
        label = as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected labels as a tensor or an array of numbers, got {value!r} ({error})") from error
    whole = not (label.is_floating_point() or label.is_complex() or label.dtype == torch.bool)
    label = label.detach().to(device, torch.int64 if whole else label.dtype)
    return label.clone() if label.is_inference() else label  # autograd refuses tensors of inference mode
