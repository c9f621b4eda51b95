"""Norm and step of per-sample weight gradients `G Aᵀ` that stay factored, for the rule that is linear in them: L2.

    ‖G Aᵀ‖² = ⟨AᵀA, GᵀG⟩                 the ghost norm (Goodfellow 2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679)
    base + s · (G Aᵀ) X' = base + s · G (AᵀX')     the sample's own step, carried into the perturbed forward pass

A bias is a row of ones in A and X', so that both Gram matrices of inputs gain 1 everywhere. Shapes and windows are those of
`common/window.py`. The CUDA kernels store neither T × T matrices nor patches. On a CPU linear layers that share an input (an
attention's queries, keys, values) share its products too, as `gram_norm` and `gram_linear` take them.
"""

from __future__ import annotations

from torch import Tensor, library

from ..common import trials
from ..common.elementwise import working_dtype
from ..common.registration import register
from ..common.window import Window
from . import cpu, reference


@library.custom_op("saal_fast::ghost_norm", mutates_args=())
def ghost_norm(a: Tensor, g: Tensor, window: list[int] | None, bias: bool) -> Tensor:
    """Each sample's `‖G Aᵀ‖²`, and with a bias its gradient's square too.

    Args:
        a: inputs.
        g: gradients at the outputs.
        window: a `Window` as a list; None for a linear layer.
        bias: whether the layer's bias is perturbed too.

    Returns:
        [N], in the widest of the types, float32 at least.

    Raises:
        ValueError: shapes don't fit each other, or the window is none.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference.norm(a, g, window, bias)


@library.custom_op("saal_fast::ghost_apply", mutates_args=())
def ghost_apply(
    a: Tensor, g: Tensor, x: Tensor, scales: Tensor, base: Tensor | None, window: list[int] | None, bias: bool
) -> Tensor:
    """What each sample's step `s · G Aᵀ` makes of the layer's output at another input.

    Args:
        a: inputs.
        g: gradients at the outputs.
        x: other inputs.
        scales: s [N].
        base: what the step's effect is added to, the layer's output at x; None for zero.
        window: a `Window` as a list; None for a linear layer.
        bias: whether the layer's bias is perturbed too.

    Returns:
        `base + s · G (AᵀX')`, like the layer's output at x, of base's type, or of g's.

    Raises:
        ValueError: shapes don't fit each other, or the window is none.
        TypeError: a tensor isn't of real floating-point numbers.
    """
    return reference.apply(a, g, x, scales, base, window, bias)


@library.custom_op("saal_fast::gram_norm", mutates_args=())
def gram_norm(products: Tensor, g: Tensor, bias: bool) -> Tensor:
    """`ghost_norm` of a linear layer whose inputs' Gram matrix is at hand.

    Args:
        products: each sample's `AᵀA` [N, T, T].
        g: gradients at the outputs [N, T, O].
        bias: whether the layer's bias is perturbed too.

    Returns:
        [N], of g's type, float32 at least.

    Raises:
        ValueError: shapes don't fit each other.
    """
    return reference.gram_norm(products, g, bias)


@library.custom_op("saal_fast::gram_linear", mutates_args=())
def gram_linear(
    products: Tensor, g: Tensor, x: Tensor, scales: Tensor, weight: Tensor, bias: Tensor | None, with_bias: bool
) -> Tensor:
    """A linear layer's output after each sample's step `s · G Aᵀ`: `ghost_apply` and the layer in one go.

    Args:
        products: each sample's `X'ᵀA` [N, T', T].
        g: gradients at the outputs [N, T, O].
        x: other inputs X' [N, T', D].
        scales: s [N].
        weight: W [O, D].
        bias: b [O]; None for zero.
        with_bias: whether the layer's bias takes the step too.

    Returns:
        `x Wᵀ + b + s · (X'ᵀA) G` [N, T', O], of x's type.

    Raises:
        ValueError: shapes don't fit each other.
    """
    return reference.gram_linear(products, g, x, scales, weight, bias, with_bias)


@gram_norm.register_fake
def _gram_norm_fake(products: Tensor, g: Tensor, bias: bool) -> Tensor:
    return g.new_empty(g.shape[0], dtype=working_dtype(g))


@gram_linear.register_fake
def _gram_linear_fake(
    products: Tensor, g: Tensor, x: Tensor, scales: Tensor, weight: Tensor, bias: Tensor | None, with_bias: bool
) -> Tensor:
    return x.new_empty(*x.shape[:2], weight.shape[0])


@ghost_norm.register_fake
def _norm_fake(a: Tensor, g: Tensor, window: list[int] | None, bias: bool) -> Tensor:
    return a.new_empty(a.shape[0], dtype=working_dtype(a, g))


@ghost_apply.register_fake
def _apply_fake(
    a: Tensor, g: Tensor, x: Tensor, scales: Tensor, base: Tensor | None, window: list[int] | None, bias: bool
) -> Tensor:
    return reference.room_for_output(g, x, base, Window.of(window))


_TRITON = f"{__name__}.triton"
register(ghost_norm, reference.norm, cpu=cpu.norm, triton_module=_TRITON, shared=(False,) * 2, trials=trials.ghost_norms)
register(ghost_apply, reference.apply, cpu=cpu.apply, triton_module=_TRITON, shared=(False,) * 5, trials=trials.ghost_steps)
register(gram_norm, reference.gram_norm, cpu=cpu.gram_norm, shared=(False, False))
register(gram_linear, reference.gram_linear, cpu=cpu.gram_linear, shared=(False, False, False, False, True, True))
