"""Pseudo-label, cross-entropy and its gradient at the logits, in one pass.

    loss = log(1 + Σ_{j≠y} exp(z_j - z_y))        ∂loss/∂z_j = softmax(z)_j - [j = y]

with y the largest logit's class or a given one. Both are computed without ever forming `1 - softmax(z)_y`, so that nearly
certain samples keep their digits (see `objectives.Classification`).
"""

from __future__ import annotations

import torch
from torch import Tensor, library

from . import triton as twins
from .elementwise import working_dtype

FLOOR = 1e-15
"""The least loss a gradient is divided by: neither its reciprocal nor that one's square overflows."""


def reference(
    logits: Tensor, label: Tensor | None = None, gain: Tensor | None = None, over_loss: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """See `cross_entropy`."""
    _check(logits, label, gain)
    z = logits.to(working_dtype(logits))
    y = z.argmax(1) if label is None else label.to(torch.int64)
    own = torch.zeros_like(z, dtype=torch.bool).scatter(1, y[:, None], True)
    others = (z - z.gather(1, y[:, None])).masked_fill(own, -torch.inf)
    rest = others.logsumexp(1)
    loss = torch.logaddexp(rest, torch.zeros_like(rest))
    factor = torch.ones_like(loss) if gain is None else gain.to(loss.dtype)
    if over_loss:
        factor = factor / loss.clamp(FLOOR, 1.0)
    shares = (others - loss[:, None]).exp()  # exp(z_j - z_y) / (1 + Σ), and 0 at y
    grad = shares - torch.where(own, shares.sum(1, keepdim=True), 0.0)
    return y, loss, (grad * factor[:, None]).to(logits.dtype)


@library.custom_op("saal_fast::cross_entropy", mutates_args=())
def cross_entropy(
    logits: Tensor, label: Tensor | None = None, gain: Tensor | None = None, over_loss: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Label, loss and gradient of each row of logits.

    Args:
        logits: z [N, C], C >= 2; any strides. Rows with a NaN get a NaN loss and any label.
        label: classes in [0, C), [N]; None for the largest logit's, the first of equals.
        gain: by what each row's gradient is multiplied [N]; None for 1.
        over_loss: whether each row's gradient is divided by its loss too, limited to [FLOOR, 1]: it then stays in range
            however certain the row. Its direction is all that a perturbation needs.

    Returns:
        label int64 [N]; loss [N], float32 at least; gradient at the logits [N, C], of their type.

    Raises:
        ValueError: shapes don't fit each other.
        TypeError: logits are no real floating-point numbers, or labels no integers.
    """
    y, loss, grad = reference(logits, label, gain, over_loss)
    return y.clone() if label is not None and y is label else y, loss, grad  # an operator returns no input of its own


@cross_entropy.register_kernel("cuda")
def _cuda(
    logits: Tensor, label: Tensor | None = None, gain: Tensor | None = None, over_loss: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    if not twins.usable(logits, gain):
        y, loss, grad = reference(logits, label, gain, over_loss)
        return y.clone() if y is label else y, loss, grad
    from .triton import cross_entropy as twin  # noqa: PLC0415  # triton may be missing

    _check(logits, label, gain)
    return twin.cross_entropy(logits, label, gain, over_loss, FLOOR)


@cross_entropy.register_fake
def _fake(
    logits: Tensor, label: Tensor | None = None, gain: Tensor | None = None, over_loss: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    n = logits.shape[0]
    return (
        logits.new_empty(n, dtype=torch.int64),
        logits.new_empty(n, dtype=working_dtype(logits)),
        logits.new_empty(logits.shape),
    )


@cross_entropy.register_vmap
def _vmap(
    info: object,
    in_dims: tuple[int | None, ...],
    logits: Tensor,
    label: Tensor | None = None,
    gain: Tensor | None = None,
    over_loss: bool = False,
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    size: int = info.batch_size  # type: ignore[attr-defined]
    dims = (*in_dims, None, None, None)
    folded = [
        t if t is None else (t.expand(size, *t.shape) if d is None else t.movedim(d, 0)).flatten(0, 1)
        for t, d in zip((logits, label, gain), dims, strict=False)
    ]
    outs = cross_entropy(*folded, over_loss)
    each = folded[0].shape[0] // size if folded[0] is not None and size else 0
    return tuple(t.reshape(size, each, *t.shape[1:]) for t in outs), (0, 0, 0)


def _check(logits: Tensor, label: Tensor | None, gain: Tensor | None) -> None:
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"expected logits [N, C] with C >= 2 classes, got {list(logits.shape)}")
    for name, t in (("label", label), ("gain", gain)):
        if t is not None and t.shape != logits.shape[:1]:
            raise ValueError(f"expected {name} [N] for logits {list(logits.shape)}, got {list(t.shape)}")
    if label is not None and (label.is_floating_point() or label.is_complex() or label.dtype == torch.bool):
        raise TypeError(f"expected labels as integers, got {label.dtype}")
