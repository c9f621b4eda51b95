"""Per-sample weight gradients that are formed once and kept, where forming them again would cost more.

If a layer has many positions and a small weight (the early layers of a vision network), `M = G Aᵀ` is cheaper to keep than
to form twice. `materialize_gradient` forms it by the tiles of `tiles/`, sums `φ(M, W)` on the way, and keeps it in the order
in which `apply_materialized` reads it back: that runs the layer with every sample's own weight, at the cost of a forward
pass. The order is the kernel's own, so only `apply_materialized` on the same device can read it.
"""

from __future__ import annotations

from torch import Tensor, library

from ..common.elementwise import working_dtype
from ..common.registration import register
from ..common.window import Window, empty_output
from . import cpu, reference
from .reference import materialized_size


@library.custom_op("saal_fast::materialize_gradient", mutates_args=())
def materialize_gradient(
    a: Tensor, g: Tensor, weight: Tensor, window: list[int] | None, rule: str, q: float
) -> tuple[Tensor, Tensor]:
    """Each sample's `Σ φ(M, W)` over its weight gradient M, and M itself for `apply_materialized`.

    Args:
        a: inputs.
        g: gradients at the outputs.
        weight: W.
        window: a `Window` as a list; None for a linear layer.
        rule: see `common/elementwise.py`.
        q: likewise.

    Returns:
        [N], of g's type, float32 at least; and [N, `materialized_size`], of the widest of the types, float32 at least.

    Raises:
        ValueError: shapes don't fit each other, or window, rule or q are none.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference.materialize(a, g, weight, window, rule, q)


@library.custom_op("saal_fast::apply_materialized", mutates_args=())
def apply_materialized(
    gradient: Tensor, x: Tensor, weight: Tensor, scales: Tensor, window: list[int] | None, rule: str, q: float
) -> Tensor:
    """The layer's output at an input with each sample's own weight `W + s · δ(M, W)`, without a bias.

    Args:
        gradient: M, as `materialize_gradient` returned it for the same layer [N, `materialized_size`].
        x: inputs.
        weight: W.
        scales: s [N].
        window: a `Window` as a list; None for a linear layer.
        rule: see `common/elementwise.py`.
        q: likewise.

    Returns:
        Like the layer's output at x, of x's type.

    Raises:
        ValueError: shapes don't fit each other.
    """
    return reference.apply(gradient, x, weight, scales, window, rule, q)


@materialize_gradient.register_fake
def _materialize_fake(
    a: Tensor, g: Tensor, weight: Tensor, window: list[int] | None, rule: str, q: float
) -> tuple[Tensor, Tensor]:
    n, size = a.shape[0], materialized_size(weight, Window.of(window).groups)
    return a.new_empty(n, dtype=working_dtype(g)), a.new_empty(n, size, dtype=working_dtype(a, g, weight))


@apply_materialized.register_fake
def _apply_fake(
    gradient: Tensor, x: Tensor, weight: Tensor, scales: Tensor, window: list[int] | None, rule: str, q: float
) -> Tensor:
    return empty_output(x, weight.shape[0], Window.of(window), x.dtype)


register(materialize_gradient, reference.materialize, cpu=cpu.materialize, shared=(False, False, True))
register(apply_materialized, reference.apply, cpu=cpu.apply, shared=(False, False, True, False))
