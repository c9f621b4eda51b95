"""The fast engine: per-sample gradients kept as factors from the norm into the perturbed forward pass.

For one sample, then `vmap`ped over the batch with the weights shared (conventions in `layers/base.py`):

1. Forward, then one backward pass to the output of each factored layer, where the gradient is G, and to the parameters that
   are differentiated directly. No weight gradient of a factored layer is formed.
2. `‖g‖² = Σ ‖direct gradients‖² + Σ ⟨AᵀA, GᵀG⟩`, and from it the scale s of ε.
3. Forward again: direct parameters enter as `p + s·g`, factored layers add `s·G (AᵀX')` to their output, X' their input in
   this pass. The weights themselves stay shared by the batch.

A weight used at several sites i has `Σ_i G_i A_iᵀ` for a gradient: its norm takes every pair of sites, and each of its uses
in step 3 adds every site's share. Rules that act element by element take tiles of `G Aᵀ` instead of Gram matrices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..ops.flat import flatten_parameters
from ..pools import Batch
from .branches import by_branches
from .direct import Direct, OneByOne, Packed
from .factors import Factored, Ghosts, Grams, Held, Tiles
from .layers import Call, Sites, Tiled, output_of
from .losses import labelled, loss_under
from .plan import Plan, Site, plan_for
from .problem import EngineError, Problem, Result, finite, nbytes, settled
from .routes import routes_for
from .vmap import over_samples


class PlanError(EngineError):
    """The model did not use its weights as the plan has it."""


class Taps(Sites):
    """Keeps each factored layer's input, and where in autograd's graph the gradient at its output is to be had.

    That is the output itself; or a zero added to it, where the model writes over it or no gradient would come by.

    Args:
        names: name of each factored weight by its `id`.
        sites: where they are used.
        zero: a 0-d zero that is differentiated.
    """

    def __init__(self, names: dict[int, str], sites: Sequence[Site], zero: Tensor) -> None:
        super().__init__(names)
        self.sites, self.zero = sites, zero
        self.inputs: list[Tensor] = []
        self.taps: list[Tensor] = []
        self.versions: list[tuple[int, int]] = []

    def at(self, name: str, call: Call, run: Callable[[], Tensor]) -> Tensor:
        i, out = len(self.inputs), output_of(call, run)
        if i == len(self.sites) or (self.sites[i].weight, self.sites[i].shape) != (name, out.shape):
            raise PlanError(f"{name} was not used as in the pass of the plan")
        tap = out
        if self.sites[i].written or not out.requires_grad:
            tap = self.zero.to(out.dtype).expand(out.shape)
            out = out + tap
        else:  # a hook that the model puts on its output must come before the tap on the way back, as it would on the output
            out = out.view_as(out)
        self.inputs.append(call.input)
        self.taps.append(tap)
        self.versions.append((call.input._version, tap._version))
        return out

    def check(self) -> None:
        """Raises where the model did not use its weights as planned."""
        if len(self.inputs) != len(self.sites):
            raise PlanError(f"{self.sites[len(self.inputs)].weight} was not used as in the pass of the plan")
        for site, tap, (_, version) in zip(self.sites, self.taps, self.versions, strict=True):
            if tap._version != version:
                raise PlanError(f"the output of {site.weight} was changed in place, as it was not in the pass of the plan")

    def check_inputs(self, grads: Sequence[Tensor | None]) -> None:
        """Raises where the model wrote over the input of a layer whose gradient needs it, as autograd would."""
        for site, a, (version, _), g in zip(self.sites, self.inputs, self.versions, grads, strict=True):
            if g is not None and a._version != version:
                raise EngineError(f"the input of {site.weight} was changed in place, but its gradient needs it as it was")


class Push(Sites):
    """Gives each factored layer the output it has after the sample's own step."""

    def __init__(self, names: dict[int, str], factored: dict[str, Factored], scale: Tensor) -> None:
        super().__init__(names)
        self.factored, self.scale = factored, scale

    def at(self, name: str, call: Call, run: Callable[[], Tensor]) -> Tensor:
        return self.factored[name].output(call, run, self.scale)


class Ghost:
    """Scores a batch by factored gradients."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.routes = routes_for(problem)
        self._plans: dict[Any, Plan] = {}
        self._weights: dict[tuple[str, ...], Tensor] = {}  # of each plan's direct parameters, packed

    def __call__(self, batch: Batch, labels: Any | None) -> Result:
        """Score a batch; see `Engine`."""
        return by_branches(self._alike, batch, labels)

    def _alike(self, batch: Batch, labels: Any | None) -> Result:
        """Scores a batch whose samples take the same branches of the model's code."""
        try:
            plan = self.plan(batch)
            return over_samples(lambda *sample: self._one(plan, *sample), batch, labels)
        except PlanError:  # an earlier batch of these shapes took another branch, or the model writes only under grad
            self._plans.clear()
            plan = self.plan(batch).careful()
            return over_samples(lambda *sample: self._one(plan, *sample), batch, labels)

    def sample_bytes(self, example: Batch) -> int:
        plan, params = self.plan(example), self.problem.params
        grams = 0
        for site in plan.sites:
            stored = self.problem.device.type == "cpu" or not isinstance(site.layer, self.routes.ghosts)
            if site.way == "grams" and stored:
                groups, _, positions = site.layer.rows(torch.empty(site.shape, device="meta")).shape
                grams = max(grams, 4 * groups * positions**2 * params[site.weight].element_size())  # one site at a time
        held = nbytes(params[site.weight] for site in plan.sites if site.way == "held")
        return grams + held + 4 * nbytes(params[name] for name in plan.direct)

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

        def backward(
            direct: dict[str, Tensor], zero: Tensor
        ) -> tuple[Tensor, tuple[Tensor, Tensor, Any, Tensor, list[Tensor], list[Tensor]]]:
            with Taps(names, plan.sites, zero) as taps:
                output = self.problem.output({**shared, **direct}, args, kwargs)
            taps.check()
            y, loss, slope, scale = labelled(task, output, label, self.routes.loss)
            points = [*direct.values(), *taps.taps]
            found = torch.autograd.grad(slope + zero, points, allow_unused=True)  # frees what it has passed
            taps.check_inputs(found[len(direct) :])
            grads = [torch.zeros_like(p) if g is None else g for p, g in zip(points, found, strict=True)]
            return zero, (loss, scale, y, finite(output, loss), taps.inputs, grads)

        direct = {name: params[name] for name in plan.direct}
        # vjp makes the parameters differentiable under vmap; its own way back would keep the whole graph, and a second one
        zero = like.new_zeros(())
        made: Any = torch.func.vjp(backward, direct, zero, has_aux=True)
        loss, gained, y, first_finite, inputs, gradients = made[2]
        formed = self._formed(direct, dict(zip(direct, gradients[: len(direct)], strict=True)))
        tap_grads = gradients[len(direct) :]

        unit: Tensor | float = 1.0
        if not rule.linear:
            # Of a factored gradient its largest element is not known, but a bound that is as good for the purpose.
            sizes = [a.abs().amax() * g.abs().amax() for a, g in zip(inputs, tap_grads, strict=True)]
            unit = rule.unit([*formed.sizes(), *sizes] if direct else sizes)
            tap_grads = [g / unit for g in tap_grads] if isinstance(unit, Tensor) else tap_grads
        factored = self._factored(plan, inputs, tap_grads)
        terms = [formed.total(unit)] if direct else []
        total = torch.stack([*terms, *(f.total() for f in factored.values())]).sum().clamp_min(0)
        step = rule.scale(total)

        moved_direct = formed.moved(step) if direct else {}
        with Push(names, factored, step):
            moved = self.problem.output({**shared, **moved_direct}, args, kwargs)
        perturbed = loss_under(task, moved, y, self.routes.loss)
        return Result(
            settled(perturbed, loss, total * rule.rho),
            loss,
            rule.dual_norm(total) * unit / gained,
            y,
            task.pseudo_label(moved),
            first_finite & finite(moved, perturbed),
        )

    def _formed(self, params: dict[str, Tensor], grads: dict[str, Tensor]) -> Direct:
        """The parameters that are differentiated directly, with their gradients."""
        if not (self.routes.packed and params):
            return OneByOne(self.problem.rule, params, grads)
        if tuple(params) not in self._weights:
            self._weights[tuple(params)] = flatten_parameters(params)
        return Packed(self.problem.rule, params, self._weights[tuple(params)], grads)

    def _factored(self, plan: Plan, inputs: list[Tensor], grads: list[Tensor]) -> dict[str, Factored]:
        """The factored gradient of each weight, from the input and the output's gradient at each site."""
        uses: dict[str, list[tuple[Site, Tensor, Tensor]]] = defaultdict(list)
        for site, a, g in zip(plan.sites, inputs, grads, strict=True):
            uses[site.weight].append((site, a, g))
        held: dict[str, Factored] = {}
        for name, of_weight in uses.items():
            site, a, g = of_weight[0]
            if site.way == "grams":
                factors = tuple(zip(*of_weight, strict=True))
                served = isinstance(site.layer, self.routes.ghosts)
                held[name] = (Ghosts.of(*factors) if served else None) or Grams(*factors)
            else:
                kind = Tiles if site.way == "tiles" else Held
                held[name] = kind(cast(Tiled, site.layer), self.problem.params[name], a, g, self.problem.rule)
        return held
