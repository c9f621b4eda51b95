"""The fast engine: per-sample gradients kept as factors from the norm into the perturbed forward pass.

For one sample, then `vmap`ped over the batch with the weights shared (conventions in `layers/base.py`):

1. Forward with a zero *tap* added to the output of each factored layer; one backward pass gives the gradient at every tap,
   which is G, and the gradients of the parameters that are differentiated directly. No weight gradient of a factored layer
   is formed.
2. `‖g‖² = Σ ‖direct gradients‖² + Σ ⟨AᵀA, GᵀG⟩`, and from it the scale s of ε.
3. Forward again: direct parameters enter as `p + s·g`, factored layers add `s·G (AᵀX')` to their output, X' their input in
   this pass. The weights themselves stay shared by the batch.

A weight used at several sites i has `Σ_i G_i A_iᵀ` for a gradient: its norm takes every pair of sites, and each of its uses
in step 3 adds every site's share.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value
from torch.utils._pytree import tree_leaves, tree_map

from ..perturbation import total_of
from ..pools import Batch
from .branches import by_branches
from .layers import Call, Layer, Sites
from .plan import Plan, Site, plan_for
from .problem import EngineError, Problem, Result, constant, finite, gain, nbytes
from .vmap import over_samples


class PlanError(EngineError):
    """The model did not use its weights as the plan has it."""


class Factor:
    """One site's share of its weight's gradient, `G Aᵀ`, kept as the layer's input and the gradient at its output."""

    def __init__(self, site: Site, a: Tensor, g: Tensor) -> None:
        self.layer, self.bias, self.a, self.g = site.layer, site.bias is not None, a, site.layer.rows(g)

    def gram(self, layer: Layer, x: Tensor) -> Tensor:
        """`AᵀX` [groups, T, T'] with x the input of `layer`; with a bias, both have a row of ones."""
        if layer == self.layer and x.shape == self.a.shape:
            gram = layer.gram(self.a, x)
        else:  # the same weight at another stride or size
            gram = self.layer.columns(self.a).mT @ layer.columns(x)
        return gram + 1 if self.bias else gram

    def dot(self, other: Factor) -> Tensor:
        """`⟨G Aᵀ, G' A'ᵀ⟩`; 0-d."""
        return (self.gram(other.layer, other.a) * (self.g.mT @ other.g)).sum()


class Taps(Sites):
    """Adds a tap to each factored layer's output, and keeps its input."""

    def __init__(self, names: dict[int, str], sites: Sequence[Site], taps: Sequence[Tensor]) -> None:
        super().__init__(names)
        self.sites, self.taps = sites, taps
        self.inputs: list[Tensor] = []
        self.versions: list[int] = []

    def at(self, name: str, call: Call, out: Tensor) -> Tensor:
        i = len(self.inputs)
        if i == len(self.sites) or (self.sites[i].weight, self.sites[i].shape) != (name, out.shape):
            raise PlanError(f"{name} was not used as in the pass of the plan")
        self.inputs.append(call.input)
        self.versions.append(call.input._version)
        return out + self.taps[i]

    def check(self) -> None:
        """Raises where the model did not use its weights as planned, or wrote over a layer's input, as autograd would."""
        if len(self.inputs) != len(self.sites):
            raise PlanError(f"{self.sites[len(self.inputs)].weight} was not used as in the pass of the plan")
        for site, a, version in zip(self.sites, self.inputs, self.versions, strict=True):
            if a._version != version:
                raise EngineError(f"the input of {site.weight} was changed in place, but its gradient needs it as it was")


class Push(Sites):
    """Adds to each factored layer's output what the sample's own step changes in it: `s·Σ_i G_i (A_iᵀX')`."""

    def __init__(self, names: dict[int, str], factors: dict[str, list[Factor]], scale: Tensor) -> None:
        super().__init__(names)
        self.factors, self.scale = factors, scale

    def at(self, name: str, call: Call, out: Tensor) -> Tensor:
        pushes = [f.g @ (self.scale * f.gram(call.layer, call.input)) for f in self.factors[name]]
        return out + call.layer.unrows(sum(pushes[1:], pushes[0]), out)


class Ghost:
    """Scores a batch by factored gradients."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._plans: dict[Any, Plan] = {}

    def __call__(self, batch: Batch, labels: Any | None) -> Result:
        """Score a batch; see `Engine`."""
        return by_branches(self._alike, batch, labels)

    def _alike(self, batch: Batch, labels: Any | None) -> Result:
        """Scores a batch whose samples take the same branches of the model's code."""
        try:
            plan = self.plan(batch)
            return over_samples(lambda *sample: self._one(plan, *sample), batch, labels)
        except PlanError:  # an earlier batch of these shapes took another branch
            self._plans.clear()
            plan = self.plan(batch)
            return over_samples(lambda *sample: self._one(plan, *sample), batch, labels)

    def sample_bytes(self, example: Batch) -> int:
        plan, params = self.plan(example), self.problem.params
        grams = 0
        for site in plan.sites:
            groups, _, positions = site.layer.rows(torch.empty(site.shape, device="meta")).shape
            grams = max(grams, 4 * groups * positions**2 * params[site.weight].element_size())  # one site at a time
        return grams + 4 * nbytes(params[name] for name in plan.direct)

    def plan(self, batch: Batch) -> Plan:
        """What is factored for inputs of this shape; made from the batch's first sample, once a shape."""
        args, kwargs = tree_map(lambda t: t[:1] if isinstance(t, Tensor) else t, (batch.args, batch.kwargs))
        shapes = tuple(t.shape if isinstance(t, Tensor) else None for t in tree_leaves((args, kwargs)))
        if shapes not in self._plans:
            self._plans[shapes] = plan_for(self.problem, args, kwargs)
        return self._plans[shapes]

    def _one(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any], label: Any | None) -> Result:
        params, rule, task = self.problem.params, self.problem.rule, self.problem.task
        shared = {name: params[name] for name in plan.factored}
        names = {id(params[site.weight]): site.weight for site in plan.sites}
        like = next(iter(params.values()))

        def loss_of(
            direct: dict[str, Tensor], taps: list[Tensor]
        ) -> tuple[Tensor, tuple[Tensor, Tensor, Any, Tensor, list[Tensor]]]:
            with Taps(names, plan.sites, taps) as tapped:
                output = self.problem.output({**shared, **direct}, args, kwargs)
            tapped.check()
            y = constant(task.pseudo_label(output)) if label is None else label
            loss = task.loss(output, y)[0]
            scale = gain(loss)
            return loss * scale, (loss, scale, y, finite(output, loss), tapped.inputs)

        direct = {name: params[name] for name in plan.direct}
        taps = [like.new_zeros(site.shape) for site in plan.sites]
        (grads, tap_grads), (_, (loss, gained, y, first_finite, inputs)) = grad_and_value(
            loss_of, argnums=(0, 1), has_aux=True
        )(direct, taps)

        unit = rule.unit(grads.values()) if grads else 1.0
        grads = {name: g / unit for name, g in grads.items()} if not rule.linear else grads
        factors: dict[str, list[Factor]] = defaultdict(list)
        for site, a, g in zip(plan.sites, inputs, tap_grads, strict=True):
            factors[site.weight].append(Factor(site, a, g))
        terms = [total_of(rule, grads, direct)] if grads else []
        terms += [f.dot(other) for same in factors.values() for f in same for other in same]
        total = torch.stack(terms).sum().clamp_min(0)
        step = rule.scale(total)

        moved_direct = {name: p + step * rule.direction(grads[name], p) for name, p in direct.items()}
        with Push(names, factors, step):
            moved = self.problem.output({**shared, **moved_direct}, args, kwargs)
        perturbed = task.loss(moved, y)[0]
        return Result(
            perturbed,
            loss,
            rule.dual_norm(total) * unit / gained,
            y,
            task.pseudo_label(moved),
            first_finite & finite(moved, perturbed),
        )
