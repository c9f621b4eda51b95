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
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ...models.memory import Meter
from ...pools import Batch
from ..functions import in_forward
from ..habits import MemoryWatch
from ..layers import CallInterceptor, Layer, LayerCall, SupportsTiles
from ..problem import Problem


@dataclass(frozen=True)
class PlannedCall:
    """One call of a layer with a factored weight, in a sample's forward pass.

    Attributes:
        weight: name of the weight.
        bias: name of the bias whose gradient travels along as a further row of A; None where there is none.
        layer: geometry.
        shape: of the layer's output for one sample.
        mode: how the gradient is kept: "ghost", "tiled" or "materialized" (see `factors.py`).
        overwritten: whether the model writes over the layer's output.
    """

    weight: str
    bias: str | None
    layer: Layer
    shape: tuple[int, ...]
    mode: str
    overwritten: bool = False


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


Use = tuple[LayerCall, tuple[int, ...]]
"""A call that uses a weight, and the shape of its output."""


Choice = Callable[[list[Use], bool], str]
"""Gives a weight's mode from its uses and whether the rule is linear."""


class UsageRecorder(CallInterceptor):
    """Records each use of a weight: the call and the shape of its output, or that it happened outside of any known layer.

    Args:
        weights: by name.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__({id(p): name for name, p in weights.items()})
        self.weights = weights  # they live as long as their names by `id` do
        self.watch = MemoryWatch(weights, self.met)
        self.meter = Meter()
        self.own: set[str] = set()  # whose memory the call under way may read
        self.calls: list[Use] = []
        self.outputs: list[tuple[Tensor, int]] = []
        self.untracked: set[str] = set()

    def at(self, name: str, call: LayerCall, run: Callable[[], Tensor]) -> Tensor:
        if in_forward():  # of a function whose own backward pass gives the weight's gradient
            self.untracked.add(name)
            return run()
        self.own = {name} | ({self.names[id(call.bias)]} if id(call.bias) in self.names else set())
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
        for call, shape in self.calls:
            uses[self.names[id(call.weight)]].append((call, shape))
        return uses

    def elsewhere(self, inputs: Any, out: Any) -> None:
        outputs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]  # none: the call asked for a shape or a dtype
        for t in tree_leaves(inputs):
            if id(t) in self.names and any(t is not o for o in outputs):
                self.untracked.add(self.names[id(t)])


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
    names, uses = recorder.names, recorder.uses()
    chosen = {name: choose(calls, problem.rule.linear) for name, calls in uses.items() if name not in recorder.untracked}
    chosen = {name: mode for name, mode in chosen.items() if mode != "autograd"}
    biases = _biases_with_weight(recorder.calls, names, {name for name, mode in chosen.items() if mode == "ghost"})
    biases = {w: b for w, b in biases.items() if b not in recorder.untracked}
    calls = tuple(
        PlannedCall(name, biases.get(name), call.layer, shape, chosen[name], out._version != version)
        for (call, shape), (out, version) in zip(recorder.calls, recorder.outputs, strict=True)
        if (name := names[id(call.weight)]) in chosen
    )
    factored = Plan(calls, ()).factored
    autograd = tuple(n for n in problem.params if n not in factored)
    return Plan(calls, autograd, recorder.watch.batch_norm, recorder.meter.bytes)


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
    weight = calls[0][0].weight
    outputs, inputs = weight.shape[0], weight[0].numel()
    forming = gram = 0.0
    for call, shape in calls:
        layer = call.layer
        groups, outputs_of_group, t = layer.flatten_grad(torch.empty(shape, device="meta")).shape
        forming += groups * outputs_of_group * inputs * t
        gram += 2 * call.layer.gram_flops(call.input, t) + 2 * groups * outputs_of_group * t * t
    moving = MULTIPLY_ADDS_PER_MOVE * outputs * inputs
    costs = {"autograd": forming + (3 if linear else 8) * moving}
    # The factors of an embedding tied to a linear head do not join. Else every use meets the factors of every other.
    if linear and len({type(call.layer) for call, _ in calls}) == 1:
        costs["ghost"] = gram * len(calls)
    once_and_full = len(calls) == 1 and outputs_of_group >= MIN_TILE_OUTPUTS
    if once_and_full and isinstance(layer, SupportsTiles) and layer.tiles(call.input):
        if not linear:
            costs["tiled"] = 2 * forming
        if weight.device.type == "cpu":  # no other device has kernels for it
            costs["materialized"] = layer.materialize_flops(call, t) + 2 * moving
    return costs


def _biases_with_weight(calls: list[Use], names: dict[int, str], weights: set[str]) -> dict[str, str]:
    """For each of the weights the bias that is used exactly where the weight is; such a bias shares its factors."""
    places: dict[str, set[int]] = defaultdict(set)
    biases: dict[str, set[int]] = defaultdict(set)
    for i, (call, _) in enumerate(calls):
        places[names[id(call.weight)]].add(i)
        if call.bias is not None and id(call.bias) in names:
            biases[names[id(call.bias)]].add(i)
    return {w: b for b, at in biases.items() for w in weights if places[w] == at}
