"""Perturbation rules: ε*, the worst step inside a ball of radius ρ, from one sample's gradient.

A rule is a few small functions of one tensor, so that an engine never asks which rule it has:

| rule | `contribution` to the total | `direction` | `scale` of ε | `dual_norm` |
| --- | --- | --- | --- | --- |
| `L2(ρ)` | ‖g‖² | g | ρ / √total | √total |
| `Lp(ρ, p)`, 1/p + 1/q = 1 | Σ|g|^q | sign(g) |g|^(q-1) | ρ / total^(1/p) | total^(1/q) |
| `Adaptive(ρ)` | ‖ |w| ⊙ g ‖² | w² ⊙ g | ρ / √total | √total |

The total is the sum over all perturbed parameters; each gets `ε = scale(total) · direction(g, w)`. ε does not change when g
is multiplied by a positive number; engines use this to keep small gradients from underflowing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

Named = Mapping[str, Tensor]


class Perturbation(Protocol):
    """A rule for one sample's worst step, as engines need it."""

    @property
    def rho(self) -> float:
        """Radius ρ >= 0 of the ball, in the rule's own norm."""
        ...

    @property
    def linear(self) -> bool:
        """Whether `direction(g, w)` is g itself, so that engines can keep a gradient factored as `G Aᵀ`."""
        ...

    @property
    def code(self) -> tuple[str, float] | None:
        """The rule's name and exponent q in the fused operations; None for a rule that they lack."""
        ...

    def unit(self, grads: Iterable[Tensor]) -> Tensor | float:
        """A positive scale that gradients are divided by before their powers are summed."""
        ...

    def contribution(self, g: Tensor, w: Tensor) -> Tensor:
        """The term that gradient g of weight w adds to the total; 0-d."""
        ...

    def direction(self, g: Tensor, w: Tensor) -> Tensor:
        """The direction of ε for gradient g of weight w; the shape of g."""
        ...

    def scale(self, total: Tensor) -> Tensor:
        """The factor of the directions that makes ‖ε‖ = ρ; 0 for a zero gradient."""
        ...

    def dual_norm(self, total: Tensor) -> Tensor:
        """The gradient's norm, dual to the ball's: to first order the loss grows by `ρ · dual_norm` (Theorem 3.3)."""
        ...


def _over(rho: float, size: Tensor) -> Tensor:
    """ρ / size, or 0 for size 0."""
    return torch.where(size > 0, rho / torch.where(size > 0, size, torch.ones_like(size)), torch.zeros_like(size))


def _amax(grads: Iterable[Tensor]) -> Tensor:
    """The largest |g|, or 1 if all are zero."""
    peak = torch.stack([g.abs().amax() for g in grads if g.numel()]).amax()
    return torch.where(peak > 0, peak, torch.ones_like(peak))


LARGEST_FUSED_EXPONENT = 3.0
"""The largest q (p = 1.5) of which fused operations take powers.

They divide a layer's gradient by a bound of its elements: its largest element is not known before it is formed. The q-th
power of what is then left may underflow for a larger q, where that of the largest element's own quotient is 1.
"""


@dataclass(frozen=True)
class L2:
    """`ε = ρ g / ‖g‖₂`: the paper's choice (Eq. 3 with p = 2)."""

    rho: float
    linear = True
    code = ("l2", 2.0)

    def unit(self, grads: Iterable[Tensor]) -> Tensor | float:
        return 1.0

    def contribution(self, g: Tensor, w: Tensor) -> Tensor:
        return g.square().sum()

    def direction(self, g: Tensor, w: Tensor) -> Tensor:
        return g

    def scale(self, total: Tensor) -> Tensor:
        return _over(self.rho, total.sqrt())

    def dual_norm(self, total: Tensor) -> Tensor:
        return total.sqrt()


@dataclass(frozen=True)
class Lp:
    """`ε = ρ sign(g) |g|^(q-1) / (‖g‖_q^q)^(1/p)`, 1/p + 1/q = 1: Eq. 3 for any p in (1, inf]; p = inf is `ρ sign(g)`."""

    rho: float
    p: float
    linear = False

    @property
    def q(self) -> float:
        """The dual exponent."""
        return 1.0 if math.isinf(self.p) else self.p / (self.p - 1)

    @property
    def code(self) -> tuple[str, float] | None:
        return ("lp", self.q) if self.q <= LARGEST_FUSED_EXPONENT else None

    def unit(self, grads: Iterable[Tensor]) -> Tensor | float:
        return 1.0 if self.q == 1 else _amax(grads)

    def contribution(self, g: Tensor, w: Tensor) -> Tensor:
        return g.abs().pow(self.q).sum()

    def direction(self, g: Tensor, w: Tensor) -> Tensor:
        return g.sign() if self.q == 1 else g.sign() * g.abs().pow(self.q - 1)

    def scale(self, total: Tensor) -> Tensor:
        return _over(self.rho, total.pow(1 / self.p))  # total^0 = 1 for p = inf

    def dual_norm(self, total: Tensor) -> Tensor:
        return total.pow(1 / self.q)


@dataclass(frozen=True)
class Adaptive:
    """`ε = ρ w² ⊙ g / ‖ |w| ⊙ g ‖₂`: the step of SAAL's published code, which is ASAM (arXiv:2102.11600) without its η."""

    rho: float
    linear = False
    code = ("adaptive", 2.0)

    def unit(self, grads: Iterable[Tensor]) -> Tensor | float:
        return 1.0

    def contribution(self, g: Tensor, w: Tensor) -> Tensor:
        return (w * g).square().sum()

    def direction(self, g: Tensor, w: Tensor) -> Tensor:
        return w.square() * g

    def scale(self, total: Tensor) -> Tensor:
        return _over(self.rho, total.sqrt())

    def dual_norm(self, total: Tensor) -> Tensor:
        return total.sqrt()


def make(rho: float, norm: float = 2, adaptive: bool = False) -> Perturbation:
    """The rule that `score(rho=, norm=, adaptive=)` asks for.

    Raises:
        TypeError: rho or norm is not a number.
        ValueError: rho is negative, NaN, infinite or beyond float64; norm is not in (1, inf]; adaptive with a norm other
            than 2.
    """
    rho, norm = _as_float("rho", rho), _as_float("norm", norm)
    if not (math.isfinite(rho) and rho >= 0):
        raise ValueError(f"expected a finite rho >= 0, got rho={rho}")
    if not norm > 1:  # also NaN
        raise ValueError(f"expected norm (the p of Eq. 3) in (1, inf], got norm={norm}")
    if adaptive and norm != 2:
        raise ValueError(f"adaptive=True is defined for norm=2 only, got norm={norm}")
    if adaptive:
        return Adaptive(rho)
    return L2(rho) if norm == 2 else Lp(rho, norm)


def _as_float(name: str, value: object) -> float:
    """Converts a real number of any type."""
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise TypeError(f"expected {name} to be a number, got {value!r} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:  # of an integer or a fraction; a Decimal gives inf
        number = math.inf
    if math.isinf(number) and value != number:
        raise ValueError(f"expected {name} within float64, got a number of type {type(value).__name__} beyond it")
    return number + 0.0  # -0.0 is 0.0


def total_of(rule: Perturbation, grads: Named, weights: Named) -> Tensor:
    """The sum of the rule's contributions over all parameters; 0-d."""
    return torch.stack([rule.contribution(g, weights[name]) for name, g in grads.items()]).sum()


def epsilon(rule: Perturbation, grads: Named, weights: Named) -> tuple[dict[str, Tensor], Tensor]:
    """Eq. 3 for a whole gradient: ε of each parameter, and the gradient's dual norm (0-d)."""
    unit = rule.unit(grads.values())
    grads = {name: g / unit for name, g in grads.items()}
    total = total_of(rule, grads, weights)
    scale = rule.scale(total)
    return {n: scale * rule.direction(g, weights[n]) for n, g in grads.items()}, rule.dual_norm(total) * unit
