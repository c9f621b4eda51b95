"""The gradients of one sample that autograd forms as a whole: what they add to the norm, and their step."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ...ops.flat import flat_norm, flat_step, flatten_parameters, unflatten_parameters
from ...perturbation import Perturbation, total_of
from ..layers import Code

Named = dict[str, Tensor]


class AutogradGradients(Protocol):
    """Parameters with the gradients that autograd has formed."""

    def sizes(self) -> list[Tensor]:
        """The gradients, in whatever shape: for `Perturbation.unit`."""
        ...

    def total(self, unit: Tensor | float) -> Tensor:
        """What the gradients, divided by `unit`, add to the rule's total; 0-d."""
        ...

    def perturbed(self, scale: Tensor) -> Named:
        """The parameters after a step of size `scale` along the gradients divided by the last `unit`."""
        ...


class SeparateGradients:
    """Each parameter by itself."""

    def __init__(self, rule: Perturbation, params: Named, grads: Named) -> None:
        self.rule, self.params, self.grads = rule, params, grads

    def sizes(self) -> list[Tensor]:
        return list(self.grads.values())

    def total(self, unit: Tensor | float) -> Tensor:
        if isinstance(unit, Tensor):
            self.grads = {name: g / unit for name, g in self.grads.items()}
        return total_of(self.rule, self.grads, self.params)

    def perturbed(self, scale: Tensor) -> Named:
        return {name: p + scale * self.rule.direction(self.grads[name], p) for name, p in self.params.items()}


class FlatGradients:
    """All parameters end to end in one row: one operation each for norm and step, however many there are.

    Args:
        code: name and exponent of the rule in the fused operations.
        params: the parameters, all of one type.
        weights: the parameters end to end [P], which samples and batches share.
        grads: their gradients.
    """

    def __init__(self, code: Code, params: Named, weights: Tensor, grads: Named) -> None:
        self.code, self.shapes, self.weights = code, {n: p.shape for n, p in params.items()}, weights
        self.row = flatten_parameters({name: grads[name] for name in params})

    def sizes(self) -> list[Tensor]:
        return [self.row]

    def total(self, unit: Tensor | float) -> Tensor:
        if isinstance(unit, Tensor):
            self.row = self.row / unit
        total: Tensor = flat_norm(self.row[None], self.weights, *self.code)
        return total[0]

    def perturbed(self, scale: Tensor) -> Named:
        rows: Tensor = flat_step(self.row[None], self.weights, scale[None], *self.code)
        return unflatten_parameters(rows[0], self.shapes)
