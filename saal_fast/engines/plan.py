"""Which parameters keep their gradient factored, and which are differentiated directly."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .layers import Call, Layer, Sites, Tiled
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
    """The factored sites in the order of the calls, and the names of the parameters left to autograd.

    `tiled` says that factored gradients are formed a tile at a time, since the rule acts on them element by element.
    """

    sites: tuple[Site, ...]
    direct: tuple[str, ...]
    tiled: bool
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
    params, tiled = problem.params, not problem.rule.linear
    names = {id(p): name for name, p in params.items()}
    with torch.no_grad(), Watch(names) as watch:
        problem.output(params, args, kwargs)

    uses: dict[str, list[tuple[Call, tuple[int, ...]]]] = defaultdict(list)
    for call, shape in watch.calls:
        uses[names[id(call.weight)]].append((call, shape))
    pays = _tiles_pay if tiled else _grams_pay
    kept = {name for name, calls in uses.items() if name not in watch.loose and pays(calls)}
    beside = {} if tiled else _biases_beside(watch.calls, names, kept)
    beside = {w: b for w, b in beside.items() if b not in watch.loose}
    sites = tuple(
        Site(name, beside.get(name), call.layer, shape)
        for call, shape in watch.calls
        if (name := names[id(call.weight)]) in kept
    )
    factored = Plan(sites, (), tiled).factored
    return Plan(sites, tuple(n for n in params if n not in factored), tiled)


MOVE = 32.0
"""Multiply-adds that take as long as moving one number through memory, on a CPU core with AVX-512."""

LANES = 8
"""Outputs of a group below which tiles are mostly empty (depthwise convolutions)."""


def _grams_pay(calls: list[tuple[Call, tuple[int, ...]]]) -> bool:
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
    return factored < direct + 3 * MOVE * outputs * inputs


def _tiles_pay(calls: list[tuple[Call, tuple[int, ...]]]) -> bool:
    """Whether forming a weight's gradient tile by tile, for the norm and again for its effect, is less work than holding it.

    Per sample: tiles are formed twice and multiplied once, where the direct way forms the gradient once and takes it
    through memory some eight times (gradient, powers, direction, step, moved weight).
    """
    if len(calls) > 1:
        return False
    (call, shape) = calls[0]
    if not isinstance(call.layer, Tiled) or not call.layer.tiles(call.input):
        return False
    _, outputs, positions = call.layer.rows(torch.empty(shape, device="meta")).shape
    return outputs >= LANES and 2 * positions < 8 * MOVE


def _biases_beside(calls: list[tuple[Call, tuple[int, ...]]], names: dict[int, str], kept: set[str]) -> dict[str, str]:
    """For each kept weight the bias that is used exactly where the weight is; such a bias shares its factors."""
    places: dict[str, set[int]] = defaultdict(set)
    biases: dict[str, set[int]] = defaultdict(set)
    for i, (call, _) in enumerate(calls):
        places[names[id(call.weight)]].add(i)
        if call.bias is not None and id(call.bias) in names:
            biases[names[id(call.bias)]].add(i)
    return {w: b for b, at in biases.items() for w in kept if places[w] == at}
