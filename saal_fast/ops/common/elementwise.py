r"""Rules that act on a weight gradient element by element.

| rule | contribution φ(m, w) | direction δ(m, w) |
| --- | --- | --- |
| "l2" | m² | m |
| "lp", with q > 0 | \|m\|^q | sign(m) \|m\|^(q-1) |
| "adaptive" | (w m)² | w² m |

They are those of `perturbation.py` (1/p + 1/q = 1). An operator's arguments cannot be objects: it takes `rule`, one of these
names, and `q`, the exponent of "lp", which the other rules ignore.
"""

from __future__ import annotations

import math

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
    """The type to compute in: the widest of the tensors' types, float32 at least.

    Raises:
        TypeError: one of them holds no real floating-point numbers.
    """
    dtype = torch.float32
    for t in tensors:
        if not t.dtype.is_floating_point:
            raise TypeError(f"expected tensors of floating-point numbers, got {t.dtype}")
        dtype = torch.promote_types(dtype, t.dtype)
    return dtype
