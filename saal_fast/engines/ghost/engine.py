"""The fast engine: per-sample gradients kept as factors from the norm into the perturbed forward pass.

It is written for one sample, then `vmap`ped over the batch with the weights shared (conventions in `layers/base.py`):

1. Forward, then one backward pass to the output of each factored layer, where the gradient is G, and to the parameters that
   autograd differentiates. No weight gradient of a factored layer is formed.
2. `‖g‖² = Σ ‖autograd's gradients‖² + Σ ⟨AᵀA, GᵀG⟩`, and from it the scale s of ε.
3. Forward again: autograd's parameters enter as `p + s·g`, factored layers add `s·G (AᵀX')` to their output, X' their input
   in this pass. The weights themselves stay shared by the batch.

A weight used by several calls i has the gradient `Σ_i G_i A_iᵀ`: its norm takes every pair of calls, and each of its uses in
step 3 adds every call's share. Rules that act element by element take tiles of `G Aᵀ` instead of Gram matrices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ..._utils.failures import struck_by
from ..._utils.logs import log
from ...models import memory
from ...ops.flat import flatten_parameters
from ...pools import Batch
from ..backward import gradients_in_order
from ..branches import Splits
from ..findings import shapes_of
from ..layers import Code, Names, SupportsTiles
from ..problem import Problem, Result, finite, keep_loss_where_no_step
from ..under_vmap import Births
from ..vmap import check_batches, for_each, over_samples, perturbed_output
from .autograd import AutogradGradients, FlatGradients, SeparateGradients
from .backends import Backends, backends_for
from .factors import Factored, FusedGhost, GramGhost, LastProducts, MaterializedGradient, TiledGradient
from .interceptors import ActivationRecorder, PerturbedForward, PlanError
from .losses import LabelledLoss, labelled_loss, loss_under
from .plan import Choice, Plan, PlannedCall, plan_for
from .prefix import Prefix, PrefixError, Replay


class FirstPass(NamedTuple):
    """What a sample's forward and backward pass give.

    Attributes:
        labelled: label, loss and loss scale.
        finite: whether output and loss hold neither NaN nor inf; 0-d bool.
        embedding: the gradient by the last layer, where asked for (see `Result`).
        inputs: each factored layer's input, in the order of the plan.
        grads: the scaled loss's gradient at each factored layer's output.
        autograd: its gradients by the parameters that autograd differentiates.
        kept: see `Prefix`.
    """

    labelled: LabelledLoss
    finite: Tensor
    embedding: tuple[Tensor, ...]
    inputs: list[Tensor]
    grads: list[Tensor]
    autograd: dict[str, Tensor]
    kept: list[Tensor]


@contextmanager
def failing_as_prefix(replay: Replay | None) -> Iterator[None]:
    """Turns the error of code that met a tensor without values, in place of one that the first pass has dropped."""
    try:
        yield
    except Exception as error:
        if replay is None or not replay.prefix.calls or "meta" not in str(error) or isinstance(error, PrefixError):
            raise
        raise PrefixError(f"the second pass failed: {error}") from error


class Ghost:
    """Scores a batch by factored gradients.

    Args:
        problem: what is scored.
        backends: which fused operations serve; None for those that suit the problem.
        choose: gives each weight its mode; None for the cheapest.
    """

    def __init__(self, problem: Problem, backends: Backends | None = None, choose: Choice | None = None) -> None:
        self.problem, self.choose = problem, choose
        self.backends = backends_for(problem) if backends is None else backends
        self.births, self.splits = Births(problem.findings.sites), Splits()
        self._weights: dict[tuple[str, ...], Tensor] = {}  # each plan's autograd parameters, end to end
        habits = problem.habits
        other_code = habits.stand_ins or habits.keeps or habits.writes or habits.differentiates or habits.own_backward
        self._keeps_prefix = not other_code  # whether the second pass takes outputs from the first

    def __call__(self, batch: Batch) -> Result:
        """Scores a batch; see `Engine`."""
        check_batches(self.problem)
        return self.splits.score(self._score, batch)

    def _score(self, batch: Batch) -> Result:
        """Scores a batch whose samples take the same branches of the model's code."""
        plan = self.plan(batch)
        try:
            return self._by_plan(plan, batch)
        except PlanError:  # an earlier batch of these shapes took another branch, or the model writes only under grad
            again = plan_for(self.problem, batch.slice(0, 1), self.choose)
        try:
            return self._by_another(plan, again, batch)
        except PlanError:  # samples that run together have the shapes of the largest
            return self._by_another(plan, self._plan_of_all(batch), batch)

    def _by_another(self, plan: Plan, again: Plan, batch: Batch) -> Result:
        """Scores a batch that its `plan` did not fit by a plan made anew, in which all outputs may be written over."""
        inplace = again.assume_inplace()
        result = self._by_plan(inplace, batch)
        # where it took no other branch, further batches assume the same
        self.problem.findings.plans[self.choose, shapes_of(batch)] = inplace if plan in (again, inplace) else again
        return result

    def _plan_of_all(self, batch: Batch) -> Plan:
        """The plan for a batch as its samples run together."""
        plans: list[Plan] = []

        def of_one(sample: Batch) -> Tensor:
            plans.append(plan_for(self.problem, sample, self.choose))
            return torch.zeros(())

        for_each(of_one, batch, self.births)
        return plans[-1]

    def _by_plan(self, plan: Plan, batch: Batch) -> Result:
        try:
            return over_samples(lambda sample: self._one(plan, sample), batch, self.births)
        except PrefixError as error:
            if struck_by(error) is not None:
                raise
            log.info("both passes run from the beginning: %s", error)
            self._keeps_prefix = False
        return over_samples(lambda sample: self._one(plan, sample), batch, self.births)

    def sample_bytes(self, example: Batch) -> int:
        plan, params = self.plan(example), self.problem.params
        gram_bytes = 0
        for call in plan.calls:
            stored = self.problem.device.type == "cpu" or not isinstance(call.layer, self.backends.fused_layers)
            if call.mode == "ghost" and stored:
                groups, _, positions = call.layer.flatten_grad(torch.empty(call.shape, device="meta")).shape
                numbers = 4 * groups * positions**2
                gram_bytes = max(gram_bytes, numbers * params[call.weight].element_size())  # one call at a time
        materialized = memory.nbytes(call.operand(params[call.weight]) for call in plan.calls if call.mode == "materialized")
        return gram_bytes + materialized + 4 * memory.nbytes(params[name] for name in plan.autograd)

    def plan(self, batch: Batch) -> Plan:
        """What is factored for inputs of this shape; made from the batch's first sample, once a shape."""
        findings, shapes = self.problem.findings, shapes_of(batch)
        if (self.choose, shapes) not in findings.plans:
            made = plan_for(self.problem, batch.slice(0, 1), self.choose)
            findings.plans[self.choose, shapes], findings.activations[shapes] = made, made.activations
        plan: Plan = findings.plans[self.choose, shapes]
        return plan

    def _one(self, plan: Plan, sample: Batch) -> Result:
        problem, rule = self.problem, self.problem.rule
        params = {name: problem.params[name] for name in plan.autograd}
        shared = self._shared(plan)
        first, prefix = self._first_pass(plan, params, sample)
        formed = self._formed(params, first.autograd)

        unit, grads = self._unit(first, formed)
        factored = self._factored(plan, first.inputs, grads)
        terms = [formed.total(unit)] if params else []
        total = torch.stack([*terms, *(f.total() for f in factored.values())]).sum().clamp_min(0)
        step = rule.scale(total)

        perturbed_params = formed.perturbed(step) if params else {}
        replay = None if prefix is None else Replay(prefix, [*shared.values(), *perturbed_params.values()])
        label, loss, _, scale = first.labelled
        with failing_as_prefix(replay):
            with PerturbedForward(self._names(plan), factored, step, replay):
                output = perturbed_output(problem, {**shared, **perturbed_params}, sample)
            perturbed = loss_under(problem.task, output, label, self.backends.fused_loss)
        if perturbed.is_meta and problem.device.type != "meta":
            raise PrefixError("code that is not seen used what the first pass had dropped")
        return Result(
            keep_loss_where_no_step(perturbed, loss, total * rule.rho),
            loss,
            rule.dual_norm(total) * unit / scale,
            label,
            problem.task.pseudo_label(output),
            first.finite & finite(output, perturbed),
            first.embedding,
        )

    def _names(self, plan: Plan) -> Names:
        return {call.identity(self.problem.params[call.weight]): call.key for call in plan.calls}

    def _shared(self, plan: Plan) -> dict[str, Tensor]:
        """The factored parameters, which the batch shares."""
        return {name: self.problem.params[name] for name in plan.factored}

    def _first_pass(self, plan: Plan, params: dict[str, Tensor], sample: Batch) -> tuple[FirstPass, Prefix | None]:
        """Forward and backward pass of a sample; `params` are those that autograd differentiates."""
        problem, names, shared = self.problem, self._names(plan), self._shared(plan)
        prefix: Prefix | None = None

        def run(params: dict[str, Tensor], zero: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
            nonlocal prefix
            prefix = Prefix([*shared.values(), *params.values()]) if self._keeps_prefix else None
            with problem.until_backward({**shared, **params}):
                return passed(params, zero)

        def passed(params: dict[str, Tensor], zero: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
            with ActivationRecorder(names, plan.calls, zero, prefix) as recorder, problem.watch_last_layer() as last:
                output = problem.output({**shared, **params}, sample)
            recorder.check_calls()
            labelled = labelled_loss(problem, output, sample.labels, self.backends.fused_loss)
            points = [*params.values(), *recorder.taps]
            root = gradients_in_order(labelled.root + zero) if plan.batch_norm else labelled.root + zero
            found = torch.autograd.grad(root, points, allow_unused=True)  # frees what it has passed
            recorder.check_inputs(found[len(params) :])
            grads = [torch.zeros_like(p) if g is None else g for p, g in zip(points, found, strict=True)]
            embedding = last.gradient(output, labelled.label) if last else ()
            by_name = dict(zip(params, grads, strict=False))
            labelled = labelled._replace(root=zero)  # the graph behind it is gone
            if prefix is not None:
                prefix.finish()
            first = FirstPass(
                labelled,
                finite(output, labelled.loss),
                embedding,
                recorder.inputs,
                grads[len(params) :],
                by_name,
                prefix.kept if prefix is not None else [],
            )
            return zero, tuple(first)

        # vjp makes the parameters differentiable under vmap; its own backward pass would keep the graph, and a second one
        zero = next(iter(problem.params.values())).new_zeros(())
        made: Any = torch.func.vjp(run, params, zero, has_aux=True)
        first = FirstPass(*made[2])
        if prefix is not None:
            prefix.kept = first.kept
        return first, prefix

    def _unit(self, first: FirstPass, formed: AutogradGradients) -> tuple[Tensor | float, list[Tensor]]:
        """By what gradients are divided before powers of them are summed, and the layers' gradients divided by it."""
        rule = self.problem.rule
        if rule.linear:
            return 1.0, first.grads
        # The largest element of a factored gradient is not known; its bound serves the purpose as well.
        bounds = [a.abs().amax() * g.abs().amax() for a, g in zip(first.inputs, first.grads, strict=True)]
        unit = rule.unit([*formed.sizes(), *bounds] if first.autograd else bounds)
        return unit, [g / unit for g in first.grads] if isinstance(unit, Tensor) else first.grads

    def _formed(self, params: dict[str, Tensor], grads: dict[str, Tensor]) -> AutogradGradients:
        """The parameters that autograd differentiates, with their gradients."""
        code = self.problem.rule.code
        if code is None or not (self.backends.flat and params):
            return SeparateGradients(self.problem.rule, params, grads)
        if tuple(params) not in self._weights:
            self._weights[tuple(params)] = flatten_parameters(params)
        return FlatGradients(code, params, self._weights[tuple(params)], grads)

    def _factored(self, plan: Plan, inputs: list[Tensor], grads: list[Tensor]) -> dict[str, Factored]:
        """The factored gradient of each weight, from the input and the output's gradient at each call."""
        uses: dict[str, list[tuple[PlannedCall, Tensor, Tensor]]] = defaultdict(list)
        for call, a, g in zip(plan.calls, inputs, grads, strict=True):
            uses[call.key].append((call, a, g))
        factored: dict[str, Factored] = {}
        last = LastProducts()
        for key, of_weight in uses.items():
            call, a, g = of_weight[0]
            if call.mode == "ghost":
                factors = tuple(zip(*of_weight, strict=True))
                fused = isinstance(call.layer, self.backends.fused_layers)
                factored[key] = (FusedGhost.of(*factors, last=last) if fused else None) or GramGhost(*factors)
            else:
                kind = TiledGradient if call.mode == "tiled" else MaterializedGradient
                layer, code = cast(SupportsTiles, call.layer), cast(Code, self.problem.rule.code)  # as the plan has it
                weight = layer.matrix(call.operand(self.problem.params[call.weight]))
                factored[key] = kind(layer, weight, a, g, code)
        return factored
