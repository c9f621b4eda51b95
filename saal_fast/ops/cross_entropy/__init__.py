"""Pseudo-label, cross-entropy and its scaled gradient at the logits, in one pass.

    loss = log(1 + Σ_{j≠y} exp(z_j - z_y))        ∂loss/∂z_j = softmax(z)_j - [j = y]

with y the largest logit's class or a given one. Both are computed without ever forming `1 - softmax(z)_y`, so that nearly
certain samples keep their digits (see `tasks.Classification`). The gradient is multiplied with a loss scale, the loss's
own reciprocal, so that it stays in range however certain a sample is: its direction is all that a perturbation needs.
"""

from __future__ import annotations

import torch
from torch import Tensor, library

from ..common import trials
from ..common.elementwise import working_dtype
from ..common.registration import register
from . import reference


@library.custom_op("saal_fast::cross_entropy", mutates_args=())
def cross_entropy(logits: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Label, loss and scaled gradient of each row of logits.

    Args:
        logits: z [N, C], C >= 2; any strides. Rows with a NaN get a NaN loss and any label.
        label: classes in [0, C), [N]; None for the largest logit's, the first of equals.

    Returns:
        label int64 [N]; loss [N], float32 at least; gradient at the logits, divided by the loss within [MIN_LOSS, 1],
        [N, C], of their type.

    Raises:
        ValueError: shapes don't fit each other.
        TypeError: logits are no real floating-point numbers, or labels no integers.
    """
    return reference.cross_entropy(logits, label)


@cross_entropy.register_fake
def _fake(logits: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    n = logits.shape[0]
    return (
        logits.new_empty(n, dtype=torch.int64),
        logits.new_empty(n, dtype=working_dtype(logits)),
        logits.new_empty(logits.shape),
    )


register(
    cross_entropy, reference.cross_entropy, triton_module=f"{__name__}.triton", shared=(False, False), trials=trials.logits
)
