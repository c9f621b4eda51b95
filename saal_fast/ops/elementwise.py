r"""What the tile operations share: rules that act on a weight gradient element by element, and folding under `vmap`.

| rule | contribution φ(m, w) | direction δ(m, w) |
| --- | --- | --- |
| "l2" | m² | m |
| "lp", with q > 0 | \|m\|^q | sign(m) \|m\|^(q-1) |
| "adaptive" | (w m)² | w² m |

They are those of `perturbation.py` (1/p + 1/q = 1), by name, since an operator's arguments cannot be objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

RULES = ("l2", "lp", "adaptive")


def check_rule(rule: str, q: float) -> None:
    """Raises ValueError unless the rule is one of `RULES`, and q positive and finite where it counts."""
    if rule not in RULES:
        raise ValueError(f"expected rule to be one of {', '.join(RULES)}, got {rule!r}")
    if rule == "lp" and not 0 < q < math.inf:
        raise ValueError(f"expected q > 0, finite, got q={q}")


def contribution(m: Tensor, w: Tensor, rule: str, q: float) -> Tensor:
    """φ(m, w), element by element."""
    if rule == "lp":
        return m.abs() if q == 1 else m.abs().pow(q)
    return m.square() if rule == "l2" else (w * m).square()


def direction(m: Tensor, w: Tensor, rule: str, q: float) -> Tensor:
    """δ(m, w), element by element; 0 where m is 0."""
    if rule == "lp":
        return m.sign() if q == 1 else m.sign() * m.abs().pow(q - 1)
    return m if rule == "l2" else w.square() * m


def native_map(rule: str, q: float) -> str:
    """The C++ core's name for the rule."""
    if rule == "lp":
        return {1.0: "absolute", 2.0: "square"}.get(q, "power")
    return "square" if rule == "l2" else "adaptive"


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """What is computed in: the widest of the tensors' types, float32 at least.

    Raises:
        TypeError: one of them holds no real floating-point numbers.
    """
    dtype = torch.float32
    for t in tensors:
        if not t.dtype.is_floating_point:
            raise TypeError(f"expected tensors of floating-point numbers, got {t.dtype}")
        dtype = torch.promote_types(dtype, t.dtype)
    return dtype


def fold(
    info: object,
    in_dims: Sequence[int | None],
    op: Callable[..., Any],
    tensors: Sequence[Tensor | None],
    shared: Sequence[bool],
    *rest: object,
) -> tuple[Any, Any]:
    """A `register_vmap` rule for operators whose sample dimension comes first: the mapped dimension is folded into it.

    Args:
        info: what `vmap` says of itself; its batch size is used.
        in_dims: the mapped dimension of each of the operator's arguments.
        op: the operator; its output is a tensor, or a tuple of tensors.
        tensors: its tensor arguments, which come first, not yet folded.
        shared: which of them have no sample dimension; where such a one is mapped, samples are taken one by one.
        rest: its other arguments.

    Returns:
        What a vmap rule returns: the output, and where its mapped dimension is.
    """
    size: int = info.batch_size  # type: ignore[attr-defined]
    each = [t if t is None or d is None else t.movedim(d, 0) for t, d in zip(tensors, in_dims, strict=False)]
    mapped = [d is not None for d in in_dims[: len(each)]]
    if any(m and s for m, s in zip(mapped, shared, strict=True)):
        rows = [[t[i] if t is not None and m else t for t, m in zip(each, mapped, strict=True)] for i in range(size)]
        outs = [op(*row, *rest) for row in rows]
        if isinstance(outs[0], tuple):
            return tuple(map(torch.stack, zip(*outs, strict=True))), (0,) * len(outs[0])
        return torch.stack(outs), 0
    folded = [
        t if t is None or s else (t if m else t.expand(size, *t.shape)).flatten(0, 1)
        for t, m, s in zip(each, mapped, shared, strict=True)
    ]
    out = op(*folded, *rest)
    if isinstance(out, tuple):
        return tuple(_unfolded(t, size) for t in out), (0,) * len(out)
    return _unfolded(out, size), 0


def _unfolded(out: Tensor, size: int) -> Tensor:
    return out.reshape(size, out.shape[0] // size, *out.shape[1:])
