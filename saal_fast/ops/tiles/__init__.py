"""Per-sample weight gradients, mapped element by element without being stored.

A sample's gradient at a weight W is `M = G Aᵀ` over its T positions (`common/window.py`). As in the ghost-clipping
literature (Goodfellow 2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679; Bu et al. 2022, arXiv:2205.10683) G and A
are kept instead of M. A Gram matrix serves only rules that are linear in M; the others (`common/elementwise.py`) need every
element of M, but one tile at a time: formed in registers, mapped, and summed (`tile_norm`) or multiplied with another input
(`tile_apply`). The fused tile is this project's own. If a or g holds inf, its sample may give NaN instead of inf.

Work, in multiply-adds: `N T D O` for the norm, `N (T + T') D O` for the effect. A convolution's patches are copied a few
strips at a time from the images into scratch memory that stays in the L2 cache.
"""

from __future__ import annotations

from torch import Tensor, library

from ..common import trials
from ..common.elementwise import working_dtype
from ..common.registration import register
from ..common.window import Window, empty_output
from . import cpu, reference


@library.custom_op("saal_fast::tile_norm", mutates_args=())
def tile_norm(a: Tensor, g: Tensor, weight: Tensor, window: list[int] | None, rule: str, q: float) -> Tensor:
    """Each sample's `Σ φ(M, W)` over its weight gradient M.

    Args:
        a: inputs.
        g: gradients at the outputs.
        weight: W.
        window: a `Window` as a list; None for a linear layer.
        rule: see `common/elementwise.py`.
        q: likewise.

    Returns:
        [N], of g's type, float32 at least.

    Raises:
        ValueError: shapes don't fit each other, or window, rule or q are none.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference.norm(a, g, weight, window, rule, q)


@library.custom_op("saal_fast::tile_apply", mutates_args=())
def tile_apply(
    a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scales: Tensor, window: list[int] | None, rule: str, q: float
) -> Tensor:
    """The layer's output at another input with each sample's own weight `W + s · δ(M, W)`, without a bias.

    Args:
        a: inputs, of which M is.
        g: gradients at the outputs, of which M is.
        x: other inputs.
        weight: W.
        scales: s [N].
        window: a `Window` as a list; None for a linear layer.
        rule: see `common/elementwise.py`.
        q: likewise.

    Returns:
        Like the layer's output at x, of g's type.

    Raises:
        ValueError: shapes don't fit each other, or window, rule or q are none.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference.apply(a, g, x, weight, scales, window, rule, q)


@tile_norm.register_fake
def _norm_fake(a: Tensor, g: Tensor, weight: Tensor, window: list[int] | None, rule: str, q: float) -> Tensor:
    return a.new_empty(a.shape[0], dtype=working_dtype(g))


@tile_apply.register_fake
def _apply_fake(
    a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scales: Tensor, window: list[int] | None, rule: str, q: float
) -> Tensor:
    return empty_output(x, weight.shape[0], Window.of(window), g.dtype)


_TRITON = f"{__name__}.triton"
register(
    tile_norm, reference.norm, cpu=cpu.norm, triton_module=_TRITON, shared=(False, False, True), trials=trials.tile_norms
)
register(
    tile_apply,
    reference.apply,
    cpu=cpu.apply,
    triton_module=_TRITON,
    shared=(False, False, False, True, False),
    trials=trials.tile_steps,
)
