"""One weight's gradient for one sample, kept as factors: what it adds to the norm, and the layer's output after its step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from ..layers import Code, Layer, LayerCall, SupportsGhost, SupportsSharedProducts, SupportsTiles, output_of
from .plan import PlannedCall


class Factored(Protocol):
    """A weight's factored gradient."""

    def total(self) -> Tensor:
        """What it adds to the rule's total; 0-d."""
        ...

    def output(self, call: LayerCall, run: Callable[[], Tensor], scale: Tensor) -> Tensor:
        """The output of a use of the weight, after the weight has taken its step of size `scale`.

        `run` makes the output without the step.
        """
        ...


class GramGhost:
    """`Σ_i G_i A_iᵀ` over a weight's uses, for a linear rule: through the Gram matrices of the inputs."""

    def __init__(self, calls: Sequence[PlannedCall], inputs: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        self.uses = [_Use(c, a, g) for c, a, g in zip(calls, inputs, grads, strict=True)]

    def total(self) -> Tensor:
        """`‖Σ_i G_i A_iᵀ‖² = Σ_ij ⟨A_iᵀA_j, G_iᵀG_j⟩`."""
        dots = [u.gram(v.layer, v.a).flatten() @ (u.g.mT @ v.g).flatten() for u in self.uses for v in self.uses]
        return sum(dots[1:], dots[0])

    def output(self, call: LayerCall, run: Callable[[], Tensor], scale: Tensor) -> Tensor:
        """`out + scale · Σ_i G_i (A_iᵀ X')`."""
        out = output_of(call, run)
        steps = [(scale * u.g) @ u.gram(call.layer, call.input) for u in self.uses]
        return out + call.layer.unflatten_output(sum(steps[1:], steps[0]), out)


class _Use:
    def __init__(self, call: PlannedCall, a: Tensor, g: Tensor) -> None:
        self.layer, self.bias, self.a, self.g = call.layer, call.bias is not None, a, call.layer.flatten_grad(g)

    def gram(self, layer: Layer, x: Tensor) -> Tensor:
        """`AᵀX` [groups, T, T'] with x the input of `layer`; with a bias, both have a row of ones."""
        if layer == self.layer and x.shape == self.a.shape:
            gram = layer.gram(self.a, x)
        else:  # the same weight at another stride or size
            gram = self.layer.unfold_input(self.a).mT @ layer.unfold_input(x)
        gram = gram.to(self.g.dtype)  # an embedding's tells which tokens are equal
        return gram + 1 if self.bias else gram


class LastProducts:
    """The products that were asked for last: layers of one input (queries, keys, values) follow each other."""

    def __init__(self) -> None:
        self._last: tuple[type, Tensor, int, Tensor, Tensor] | None = None

    def of(self, layer: SupportsSharedProducts, x: Tensor, a: Tensor) -> Tensor:
        """`layer.products(x, a)`."""
        last = self._last
        if last is None or last[:1] != (type(layer),) or last[1] is not x or last[2] != x._version or last[3] is not a:
            self._last = last = type(layer), x, x._version, a, layer.products(x, a)
        return last[4]


class FusedGhost:
    """What `GramGhost` does, by one operation each for the norm and the step; on CUDA these store no Gram matrices.

    Args:
        layer: geometry.
        bias: whether a bias shares the factors.
        a: the input.
        g: the gradient at the output.
        input: the very tensor that the layer was given, where it was used once; else a.
        last: shared by all weights of a sample.
    """

    def __init__(self, layer: SupportsGhost, bias: bool, a: Tensor, g: Tensor, input: Tensor, last: LastProducts) -> None:
        self.layer, self.bias, self.a, self.g, self.input, self.last = layer, bias, a, g, input, last

    @classmethod
    def of(
        cls, calls: Sequence[PlannedCall], inputs: Sequence[Tensor], grads: Sequence[Tensor], *, last: LastProducts
    ) -> FusedGhost | None:
        """Of a weight's uses; None where the operations don't know such a layer, or such a set of uses."""
        layer = calls[0].layer
        if not isinstance(layer, SupportsGhost) or any(call.layer != layer for call in calls):
            return None
        joined = layer.join_uses(list(zip(inputs, grads, strict=True)))
        if joined is None:
            return None
        return cls(layer, calls[0].bias is not None, *joined, inputs[0] if len(inputs) == 1 else joined[0], last)

    def total(self) -> Tensor:
        """`‖G Aᵀ‖²`."""
        if isinstance(self.layer, SupportsSharedProducts) and self.layer.shares_products(self.a, self.g):
            return self.layer.products_norm(self.last.of(self.layer, self.input, self.input), self.g, self.bias)
        return self.layer.ghost_norm(self.a, self.g, self.bias)

    def output(self, call: LayerCall, run: Callable[[], Tensor], scale: Tensor) -> Tensor:
        """`out + scale · G (Aᵀ X')`."""
        if isinstance(self.layer, SupportsSharedProducts) and self.layer.shares_products(call.input, call.weight):
            products = self.last.of(self.layer, call.input, self.input)
            return self.layer.products_output(products, self.g, call, scale, self.bias)
        return self.layer.ghost_apply(self.a, self.g, call.input, scale, output_of(call, run), self.bias)


class TiledGradient:
    """`G Aᵀ` of a weight used once, for any rule: formed, mapped and used up a tile at a time."""

    def __init__(self, layer: SupportsTiles, weight: Tensor, a: Tensor, g: Tensor, code: Code) -> None:
        self.layer, self.weight, self.a, self.g, self.code = layer, weight, a, g, code

    def total(self) -> Tensor:
        """`Σ φ(G Aᵀ, W)`."""
        return self.layer.tile_norm(self.a, self.g, self.weight, self.code)

    def output(self, call: LayerCall, run: Callable[[], Tensor], scale: Tensor) -> Tensor:
        """`(W + scale · δ(G Aᵀ, W)) X'`, in one operation."""
        out = self.layer.tile_apply(self.a, self.g, call.input, self.weight, scale, self.code)
        return out if call.bias is None else self.layer.add_bias(out, call.bias)


class MaterializedGradient:
    """`G Aᵀ` of a weight used once, for any rule: formed a tile at a time, and kept."""

    def __init__(self, layer: SupportsTiles, weight: Tensor, a: Tensor, g: Tensor, code: Code) -> None:
        self.layer, self.weight, self.code = layer, weight, code
        self._total, self.gradient = layer.materialize(a, g, weight, code)

    def total(self) -> Tensor:
        """`Σ φ(G Aᵀ, W)`."""
        return self._total

    def output(self, call: LayerCall, run: Callable[[], Tensor], scale: Tensor) -> Tensor:
        """`(W + scale · δ(G Aᵀ, W)) X'`, in one operation."""
        out = self.layer.apply_materialized(self.gradient, call.input, self.weight, scale, self.code)
        return out if call.bias is None else self.layer.add_bias(out, call.bias)
