"""Which parameters keep their gradient factored, and which autograd differentiates.

A parameter's **mode** is one of

    ghost         its gradient stays factored: Gram matrices for the norm, `G (AᵀX')` for the step
    tiled         `G Aᵀ` is formed a tile at a time, mapped and used up, twice
    materialized  `G Aᵀ` is formed once and kept
    autograd      autograd forms it as a whole
    with_weight   a bias whose gradient is a further row of its weight's factors
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ...models.memory import Meter
from ...pools import Batch
from ..batched import memory_of
from ..functions import in_forward
from ..habits import MemoryWatch
from ..layers import CallInterceptor, Layer, LayerCall, Place, SupportsTiles
from ..layers.views import VIEWS
from ..problem import Problem
from .parts import Use, View, are_disjoint, parts_of


@dataclass(frozen=True)
class PlannedCall:
    """One call of a layer with a factored weight, in a sample's forward pass.

    Attributes:
        weight: name of the parameter that has the weight.
        bias: name of the bias whose gradient travels along as a further row of A; None where there is none.
        layer: geometry.
        shape: of the layer's output for one sample.
        mode: how the gradient is kept: "ghost", "tiled" or "materialized" (see `factors.py`).
        overwritten: whether the model writes over the layer's output.
        part: number of the part of the parameter that the call uses; None where there is one.
        view: the view of the parameter that the call is given; None for the parameter itself.
    """

    weight: str
    bias: str | None
    layer: Layer
    shape: tuple[int, ...]
    mode: str
    overwritten: bool = False
    part: int | None = None
    view: View | None = None

    @property
    def key(self) -> str:
        """Name of the weight: the parameter's, or of the part of it that the call uses."""
        return self.weight if self.part is None else f"{self.weight}[{self.part}]"

    def operand(self, parameter: Tensor) -> Tensor:
        """What the call is given as its weight."""
        return parameter if self.view is None else self.view.within(parameter)

    def identity(self, parameter: Tensor) -> int | Place:
        """That by which an interceptor recognises the operand."""
        return id(parameter) if self.view is None else self.view.place(parameter)


@dataclass(frozen=True)
class Plan:
    """How the parameters are taken.

    Attributes:
        calls: the factored calls in the order of the forward pass.
        autograd: the names of the parameters left to autograd.
        batch_norm: whether torch's own batch norm runs, whose gradients must be in order (see `backward.py`).
        activations: bytes that a forward pass of one sample allocates.
        factored: the names of all others.
    """

    calls: tuple[PlannedCall, ...]
    autograd: tuple[str, ...]
    batch_norm: bool = False
    activations: int = field(default=0, compare=False)
    factored: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Collects the names of all factored parameters: weights and the biases that go with them."""
        names = [n for call in self.calls for n in (call.weight, call.bias) if n is not None]
        object.__setattr__(self, "factored", tuple(dict.fromkeys(names)))

    def assume_inplace(self) -> Plan:
        """The same plan for a model that may write over any layer's output."""
        return replace(self, calls=tuple(replace(call, overwritten=True) for call in self.calls))


Choice = Callable[[list[Use], bool], str]
"""Gives a weight's mode from its uses and whether the rule is linear."""


class UsageRecorder(CallInterceptor):
    """Records each use of a weight: the call and the shape of its output, or that it happened outside of any known layer.

    Making a view is no use; the view is known from then on.

    Args:
        weights: by name.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__({id(p): name for name, p in weights.items()})
        self.weights = weights  # they live as long as their names by `id` do
        self.watch = MemoryWatch(weights, self.met, views=False)
        self.meter = Meter()
        self.own: set[str] = set()  # whose memory the call under way may read
        self.made: dict[int, tuple[str, Tensor]] = {}  # views of weights, by their `id`
        self.calls: list[Use] = []
        self.outputs: list[tuple[Tensor, int]] = []
        self.untracked: set[str] = set()

    def name_of(self, t: Any) -> str | None:
        name = self.names.get(id(t))
        return self.made[id(t)][0] if name is None and id(t) in self.made else name

    def intercept(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        name = self.name_of(args[0]) if args and fn in VIEWS else None
        if name is None or not torch.is_grad_enabled():
            return super().intercept(fn, args, kwargs, run)
        out = run()
        views = [out] if isinstance(out, Tensor) else out
        if all(_is_view(t, args[0]) for t in views):
            self.made.update((id(t), (name, t)) for t in views)
        else:
            self.elsewhere((args, kwargs), out)
        return out

    def at(self, name: str, call: LayerCall, run: Callable[[], Tensor]) -> Tensor:
        if in_forward():  # of a function whose own backward pass gives the weight's gradient
            self.untracked.add(name)
            return run()
        bias = self.name_of(call.bias)
        self.own = {name} if bias is None else {name, bias}
        out = run()
        self.own = set()
        self.calls.append((call, tuple(out.shape)))
        self.outputs.append((out, out._version))
        self.elsewhere(call.input, out)  # a parameter may be a layer's input too
        self.untracked |= self.watch.names([call.input])
        return out

    def met(self, names: set[str]) -> None:
        """Meets an operation that reads these weights' memory, through whatever tensor."""
        self.untracked |= names - self.own

    def uses(self) -> dict[str, list[Use]]:
        """The calls of each weight, by its name."""
        uses: dict[str, list[Use]] = defaultdict(list)
        for use in self.calls:
            uses[str(self.name_of(use[0].weight))].append(use)
        return uses

    def elsewhere(self, inputs: Any, out: Any) -> None:
        outputs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]  # none: the call asked for a shape or a dtype
        for t in tree_leaves(inputs):
            name = self.name_of(t)
            if name is not None and any(t is not o for o in outputs):
                self.untracked.add(name)


def _is_view(t: Any, of: Tensor) -> bool:
    return isinstance(t, Tensor) and t.dtype == of.dtype and memory_of(t) == memory_of(of)


def record_usage(problem: Problem, sample: Batch) -> UsageRecorder:
    """What a forward pass over a batch of one does with the weights."""
    params = problem.recorded()
    recorder = UsageRecorder(params)
    with torch.no_grad(), recorder.meter, recorder.watch, recorder:
        problem.output(params, sample)
    return recorder


def plan_for(problem: Problem, sample: Batch, choose: Choice | None = None) -> Plan:
    """Runs the model once on a batch of one and gives each weight its mode.

    Args:
        problem: what is scored.
        sample: a batch of one.
        choose: gives a weight's mode from its uses and whether the rule is linear; None for `cheapest_mode`.
    """
    if problem.rule.code is None:  # no fused operation knows the rule
        choose = lambda calls, linear: "autograd"  # noqa: E731
    choose = choose or cheapest_mode
    recorder = record_usage(problem, sample)
    uses = recorder.uses()
    chosen = {name: choose(calls, problem.rule.linear) for name, calls in uses.items() if name not in recorder.untracked}
    chosen = {name: mode for name, mode in chosen.items() if mode != "autograd"}
    calls = _planned_calls(recorder, chosen)
    factored = Plan(calls, ()).factored
    autograd = tuple(n for n in problem.params if n not in factored)
    return Plan(calls, autograd, recorder.watch.batch_norm, recorder.meter.bytes)


def _planned_calls(recorder: UsageRecorder, chosen: dict[str, str]) -> tuple[PlannedCall, ...]:
    """The calls of the weights with a mode."""
    parts = {name: parts_of(calls) or [] for name, calls in recorder.uses().items() if name in chosen}
    numbers = {id(use[0]): i for uses in parts.values() for i, part in enumerate(uses) for use in part}
    planned: list[PlannedCall | None] = []
    for (call, shape), (out, version) in zip(recorder.calls, recorder.outputs, strict=True):
        name = str(recorder.name_of(call.weight))
        if name not in chosen:
            planned.append(None)
            continue
        weight = recorder.weights[name]
        part = numbers[id(call)] if len(parts[name]) > 1 else None
        view = None if call.weight is weight else View.of(call.weight, weight)
        planned.append(PlannedCall(name, None, call.layer, shape, chosen[name], out._version != version, part, view))
    biases = _biases_with_weight(recorder, planned)
    return tuple(replace(call, bias=biases.get(i)) for i, call in enumerate(planned) if call is not None)


MULTIPLY_ADDS_PER_MOVE = 32.0
"""Multiply-adds that take as long as moving one number through memory, on a CPU core with AVX-512."""

MIN_TILE_OUTPUTS = 8
"""Outputs of a group below which tiles are mostly empty (depthwise convolutions)."""


def cheapest_mode(calls: list[Use], linear: bool) -> str:
    """The mode of least work for a weight's part in the norm and in the perturbed pass; see `mode_costs`."""
    costs = mode_costs(calls, linear)
    return min(costs, key=costs.__getitem__)


def mode_costs(calls: list[Use], linear: bool) -> dict[str, float]:
    """Work of each mode that is open to a weight, a sample, beyond one pass with the weight, in multiply-adds.

    - autograd: forms `G Aᵀ` and takes it through memory some eight times (gradient, powers, direction, step, perturbed
      weight); three times, where the rule is linear.
    - ghost: forms two Gram matrices of the input (one for the norm, one between the passes) and multiplies with G twice.
    - tiled: forms `G Aᵀ` twice, without memory.
    - materialized: forms it once, perhaps with fewer multiplications, writes and reads it.

    Args:
        calls: the weight's uses.
        linear: whether the rule is linear in the gradient; else Gram matrices don't help.
    """
    parts = parts_of(calls)
    costs = {"autograd": 0.0, "ghost": 0.0, "tiled": 0.0, "materialized": 0.0}
    open_modes = {"autograd"} if parts is None else set(costs)
    for part in [calls] if parts is None else parts:
        of_part = _costs_of_part(part, linear)
        open_modes &= of_part.keys()
        costs = {mode: cost + of_part.get(mode, 0.0) for mode, cost in costs.items()}
    return {mode: cost for mode, cost in costs.items() if mode in open_modes}


def _costs_of_part(calls: list[Use], linear: bool) -> dict[str, float]:
    """`mode_costs` of calls that use the same numbers."""
    weight = calls[0][0].weight
    forming = gram = 0.0
    for call, shape in calls:
        layer = call.layer
        groups, outputs_of_group, t = layer.flatten_grad(torch.empty(shape, device="meta")).shape
        forming += weight.numel() * t
        gram += 2 * layer.gram_flops(call.input, t) + 2 * groups * outputs_of_group * t * t
    moving = MULTIPLY_ADDS_PER_MOVE * weight.numel()
    costs = {"autograd": forming + (3 if linear else 8) * moving}
    # The factors of an embedding tied to a linear head do not join. Else every use meets the factors of every other.
    if linear and len({type(call.layer) for call, _ in calls}) == 1:
        costs["ghost"] = gram * len(calls)
    if len(calls) > 1 or not isinstance(layer, SupportsTiles):
        return costs
    tiles = layer.tiles(call.input) and outputs_of_group >= MIN_TILE_OUTPUTS
    if tiles and not linear:
        costs["tiled"] = 2 * forming
    if (tiles or layer.small(call)) and weight.device.type == "cpu":  # no other device has kernels for it
        costs["materialized"] = layer.materialize_flops(call, t) + 2 * moving
    return costs


def _biases_with_weight(recorder: UsageRecorder, planned: Sequence[PlannedCall | None]) -> dict[int, str]:
    """For each call the bias that shares its weight's factors: one that is used exactly where the weight is.

    Of a packed bias this must hold for each part. Every output has a number of its own in it.

    Args:
        recorder: has the calls.
        planned: likewise, as they are planned; None for those without a factored weight.
    """
    of_weight: dict[str, set[int]] = defaultdict(set)
    for i, plan in enumerate(planned):
        if plan is not None and plan.mode == "ghost":
            of_weight[plan.key].add(i)
    of_bias: dict[str, dict[Place | None, set[int]]] = defaultdict(lambda: defaultdict(set))
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for i, (call, shape) in enumerate(recorder.calls):
        name = recorder.name_of(call.bias)
        if name is not None and call.bias is not None:
            groups, outputs, _ = call.layer.flatten_grad(torch.empty(shape, device="meta")).shape
            place = Place.of(call.bias) if call.bias.shape == (groups * outputs,) else None
            if place not in of_bias[name]:
                parts[name].append(call.bias)
            of_bias[name][place].add(i)
    with_weight = {
        name
        for name, places in of_bias.items()
        if None not in places and name not in recorder.untracked and are_disjoint(parts[name])
        if all(at in of_weight.values() for at in places.values())
    }
    return {i: name for name in with_weight for at in of_bias[name].values() for i in at}
