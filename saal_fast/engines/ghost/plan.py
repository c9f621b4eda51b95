"""Which parameters keep their gradient factored, and which are differentiated directly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..layers import Call, Layer, Sites, Tiled
from ..problem import Problem


@dataclass(frozen=True)
class Site:
    """Where a factored weight is used: one call of one layer in the forward pass.

    Attributes:
        weight: name of the weight.
        bias: name of the bias whose gradient travels along as a further row of A; None where there is none.
        layer: geometry.
        shape: of the layer's output for one sample.
        way: how the gradient is kept, "grams", "tiles" or "held" (see `factors.py`).
        written: whether the model writes over the layer's output.
    """

    weight: str
    bias: str | None
    layer: Layer
    shape: tuple[int, ...]
    way: str
    written: bool = False


@dataclass(frozen=True)
class Plan:
    """The factored sites in the order of the calls, and the names of the parameters left to autograd."""

    sites: tuple[Site, ...]
    direct: tuple[str, ...]
    factored: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Collects the names of all factored parameters: weights and the biases beside them."""
        names = [n for site in self.sites for n in (site.weight, site.bias) if n is not None]
        object.__setattr__(self, "factored", tuple(dict.fromkeys(names)))

    def careful(self) -> Plan:
        """The same for a model that may write over any layer's output."""
        return replace(self, sites=tuple(replace(site, written=True) for site in self.sites))


Use = tuple[Call, tuple[int, ...]]  # of a weight, and the shape of its output


class Watch(Sites):
    """Notes each use of a weight: the call and the shape of its output, or that it was used outside of any known layer."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__(names)
        self.calls: list[tuple[Call, tuple[int, ...]]] = []
        self.outs: list[tuple[Tensor, int]] = []
        self.loose: set[str] = set()

    def at(self, name: str, call: Call, run: Callable[[], Tensor]) -> Tensor:
        out = run()
        self.calls.append((call, tuple(out.shape)))
        self.outs.append((out, out._version))
        self.elsewhere(call.input, out)  # a parameter may be a layer's input too
        return out

    def uses(self) -> dict[str, list[Use]]:
        """The calls of each weight, by its name."""
        uses: dict[str, list[Use]] = defaultdict(list)
        for call, shape in self.calls:
            uses[self.names[id(call.weight)]].append((call, shape))
        return uses

    def elsewhere(self, inputs: Any, out: Any) -> None:
        outs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]  # none: it was asked for a shape or a dtype
        for t in tree_leaves(inputs):
            if id(t) in self.names and any(t is not o for o in outs):
                self.loose.add(self.names[id(t)])


def watched(problem: Problem, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Watch:
    """What a pass of the model over a batch of one does with its weights."""
    watch = Watch({id(p): name for name, p in problem.params.items()})
    with torch.no_grad(), watch:
        problem.output(problem.params, args, kwargs)
    return watch


def plan_for(problem: Problem, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
    """Runs the model once on a batch of one and decides for each weight: factored where that is less work, else direct.

    Args:
        problem: what is scored.
        args: positional inputs, each [1, ...].
        kwargs: keyword inputs, each [1, ...].
    """
    params = problem.params
    watch = watched(problem, args, kwargs)
    names, uses = watch.names, watch.uses()
    ways = {name: best_way(calls, problem.rule.linear) for name, calls in uses.items() if name not in watch.loose}
    ways = {name: way for name, way in ways.items() if way != "direct"}
    beside = _biases_beside(watch.calls, names, {name for name, way in ways.items() if way == "grams"})
    beside = {w: b for w, b in beside.items() if b not in watch.loose}
    sites = tuple(
        Site(name, beside.get(name), call.layer, shape, ways[name], out._version != version)
        for (call, shape), (out, version) in zip(watch.calls, watch.outs, strict=True)
        if (name := names[id(call.weight)]) in ways
    )
    factored = Plan(sites, ()).factored
    return Plan(sites, tuple(n for n in params if n not in factored))


MOVE = 32.0
"""Multiply-adds that take as long as moving one number through memory, on a CPU core with AVX-512."""

LANES = 8
"""Outputs of a group below which tiles are mostly empty (depthwise convolutions)."""


def best_way(calls: list[Use], linear: bool) -> str:
    """The least work of the ways there are to a weight's part in the norm and in the perturbed pass.

    Args:
        calls: the weight's uses.
        linear: whether the rule is linear in the gradient; else Gram matrices don't help.

    Returns:
        "grams", "tiles", "held" or "direct".
    """
    costs = ways_of(calls, linear)
    return min(costs, key=costs.__getitem__)


def ways_of(calls: list[Use], linear: bool) -> dict[str, float]:
    """Work of each way that is open to a weight, a sample, beyond one pass with the weight, in multiply-adds.

    - direct: forms `G Aᵀ` and takes it through memory some eight times (gradient, powers, direction, step, moved weight);
      three, where the rule is linear.
    - grams: forms two Gram matrices of the input (one for the norm, one between the passes) and multiplies with G twice.
    - tiles: forms `G Aᵀ` twice, without memory.
    - held: forms it once, perhaps with fewer multiplications, writes and reads it.
    """
    weight = calls[0][0].weight
    outputs, inputs = weight.shape[0], weight[0].numel()
    forming = grams = 0.0
    for call, shape in calls:
        layer = call.layer
        groups, outputs_of_group, t = layer.rows(torch.empty(shape, device="meta")).shape
        forming += groups * outputs_of_group * inputs * t
        grams += 2 * call.layer.gram_flops(call.input, t) + 2 * groups * outputs_of_group * t * t
    moved = MOVE * outputs * inputs
    ways = {"direct": forming + (3 if linear else 8) * moved}
    # An embedding tied to a linear head: their factors do not join. Else every use meets the factors of every other.
    if linear and len({type(call.layer) for call, _ in calls}) == 1:
        ways["grams"] = grams * len(calls)
    if len(calls) == 1 and isinstance(layer, Tiled) and layer.tiles(call.input) and outputs_of_group >= LANES:
        if not linear:
            ways["tiles"] = 2 * forming
        if weight.device.type == "cpu":  # elsewhere it has no twin of its own
            ways["held"] = layer.holding_flops(call, t) + 2 * moved
    return ways


def _biases_beside(calls: list[tuple[Call, tuple[int, ...]]], names: dict[int, str], kept: set[str]) -> dict[str, str]:
    """For each kept weight the bias that is used exactly where the weight is; such a bias shares its factors."""
    places: dict[str, set[int]] = defaultdict(set)
    biases: dict[str, set[int]] = defaultdict(set)
    for i, (call, _) in enumerate(calls):
        places[names[id(call.weight)]].add(i)
        if call.bias is not None and id(call.bias) in names:
            biases[names[id(call.bias)]].add(i)
    return {w: b for b, at in biases.items() for w in kept if places[w] == at}
