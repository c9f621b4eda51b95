"""Which parameters keep their gradient factored, and which are differentiated directly."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .layers import Call, Layer, Sites
from .problem import Problem


@dataclass(frozen=True)
class Site:
    """Where a factored weight is used: one call of one layer in the forward pass.

    Attributes:
        weight: name of the weight.
        bias: name of the bias whose gradient travels along as a further row of A; None where there is none.
        layer: geometry.
        shape: of the layer's output for one sample.
    """

    weight: str
    bias: str | None
    layer: Layer
    shape: tuple[int, ...]


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


class Watch(Sites):
    """Notes each use of a weight: the call and the shape of its output, or that it was used outside of any known layer."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__(names)
        self.calls: list[tuple[Call, tuple[int, ...]]] = []
        self.loose: set[str] = set()

    def at(self, name: str, call: Call, out: Tensor) -> Tensor:
        self.calls.append((call, tuple(out.shape)))
        self.elsewhere(call.input, out)  # a parameter may be a layer's input too
        return out

    def elsewhere(self, inputs: Any, out: Any) -> None:
        outs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]  # none: it was asked for a shape or a dtype
        for t in tree_leaves(inputs):
            if id(t) in self.names and any(t is not o for o in outs):
                self.loose.add(self.names[id(t)])


def plan_for(problem: Problem, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
    """Runs the model once on a batch of one and decides for each weight: factored where that is less work, else direct.

    Args:
        problem: what is scored.
        args: positional inputs, each [1, ...].
        kwargs: keyword inputs, each [1, ...].
    """
    params = problem.params
    if not problem.rule.linear:  # a gradient that is mapped element by element cannot stay factored
        return Plan((), tuple(params))
    names = {id(p): name for name, p in params.items()}
    with torch.no_grad(), Watch(names) as watch:
        problem.output(params, args, kwargs)

    uses: dict[str, list[tuple[Call, tuple[int, ...]]]] = defaultdict(list)
    for call, shape in watch.calls:
        uses[names[id(call.weight)]].append((call, shape))
    kept = {name for name, calls in uses.items() if name not in watch.loose and _pays(calls)}
    beside = {w: b for w, b in _biases_beside(watch.calls, names, kept).items() if b not in watch.loose}
    sites = tuple(
        Site(name, beside.get(name), call.layer, shape)
        for call, shape in watch.calls
        if (name := names[id(call.weight)]) in kept
    )
    plan = Plan(sites, ())
    return Plan(sites, tuple(n for n in params if n not in plan.factored))


def _pays(calls: list[tuple[Call, tuple[int, ...]]]) -> bool:
    """Whether a weight's factors are less work than its gradient.

    Per sample, in multiply-adds: the factored way forms two Gram matrices of the input (one for the norm, one between the
    passes) and multiplies with G twice; the direct way forms `G Aᵀ` once and moves three copies of it through memory.
    """
    if len({type(call.layer) for call, _ in calls}) > 1:  # an embedding tied to a linear head: their factors do not join
        return False
    first = calls[0][0].weight
    outputs, inputs = first.shape[0], first[0].numel()
    factored = direct = 0.0
    positions = 0
    for call, shape in calls:
        rows = call.layer.rows(torch.empty(shape, device="meta"))
        groups, outputs_of_group, t = rows.shape
        positions += t
        direct += groups * outputs_of_group * inputs * t
        factored += 2 * call.layer.gram_flops(call.input, t) + 2 * groups * outputs_of_group * t * t
    factored *= len(calls)  # every use meets the factors of every other
    memory = 16.0 * 3 * outputs * inputs  # moving a number costs as much as some 16 multiply-adds on a CPU core
    return factored < direct + memory


def _biases_beside(calls: list[tuple[Call, tuple[int, ...]]], names: dict[int, str], kept: set[str]) -> dict[str, str]:
    """For each kept weight the bias that is used exactly where the weight is; such a bias shares its factors."""
    places: dict[str, set[int]] = defaultdict(set)
    biases: dict[str, set[int]] = defaultdict(set)
    for i, (call, _) in enumerate(calls):
        places[names[id(call.weight)]].add(i)
        if call.bias is not None and id(call.bias) in names:
            biases[names[id(call.bias)]].add(i)
    return {w: b for b, at in biases.items() for w in kept if places[w] == at}
