"""`explain`: how the ghost engine takes each parameter of a model, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .. import perturbation
from ..engines import Problem
from ..engines.ghost.plan import Use, plan_for, watched, ways_of
from ..engines.problem import PRECISIONS
from ..models.state import eager, untouched
from ..pools import Stream
from ..tasks import Classification, Task
from .score import Precision, check_precision, checked_model, score


@dataclass(frozen=True)
class Row:
    """One parameter.

    Attributes:
        name: as in `model.named_parameters()`.
        shape: of the parameter.
        layer: the family that reads it, "conv", "linear", ...; "-" for one that none does.
        positions: T, how often a sample's forward pass uses each of its numbers.
        way: "grams", "tiles" or "held" (factored, see README.md, "How it works"), "beside" (a bias that travels with its
            weight), or "direct" (by autograd).
        flops: floating-point operations a sample that the way adds to the passes every sample needs; None where not known.
        kept: bytes a sample that are kept or moved for it.
        others: FLOPs of the ways that were open.
    """

    name: str
    shape: tuple[int, ...]
    layer: str
    positions: int
    way: str
    flops: float | None
    kept: int
    others: dict[str, float]


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; printing it gives a table.

    Attributes:
        rows: the perturbed parameters, in the model's order.
        forward: FLOPs a sample of one forward pass through the layers that were read.
        fallback: why the reference engine scores this model instead; None where ghost does.
    """

    rows: tuple[Row, ...]
    forward: float
    fallback: str | None

    def __str__(self) -> str:
        head = ("parameter", "shape", "layer", "T", "way", "MFLOP", "kB", "open ways (MFLOP)")
        lines = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        added = sum(row.flops or 0 for row in self.rows)
        table += [
            f"{added / 1e6:,.1f} MFLOP a sample beside three passes (forward, back to the data, perturbed forward) of "
            f"{self.forward / 1e6:,.1f} each",
            f"engine: {'ghost' if self.fallback is None else 'reference, since ' + self.fallback}",
        ]
        return "\n".join(table)


def explain(
    model: nn.Module,
    example: Any,
    *,
    rho: float = 0.05,
    norm: float = 2,
    adaptive: bool = False,
    params: Callable[[str], bool] | None = None,
    task: Task | None = None,
    precision: Precision | None = None,
    device: torch.device | str | None = None,
) -> Explanation:
    """How `score` would take a model's parameters: factored, formed in tiles, kept, or differentiated directly.

    Args:
        model: as for `score`; it comes back as it was.
        example: a pool as for `score`; its first sample is run.
        rho: as for `score`.
        norm: as for `score`.
        adaptive: as for `score`.
        params: as for `score`.
        task: as for `score`.
        precision: as for `score`.
        device: as for `score`.

    Returns:
        An `Explanation`; print it.

    Raises:
        ValueError: the example is empty; and as `score`.
        TypeError: as `score`.
    """
    rule = perturbation.make(rho, norm, adaptive)
    check_precision(precision)
    inner = checked_model(model)
    with untouched(inner), eager(), torch.inference_mode(False), torch.no_grad():
        where = None if device is None else torch.empty(0, device=device).device
        kind = PRECISIONS[precision]
        problem = Problem.of(inner, rule, Classification() if task is None else task, params, where, kind)
        sample = Stream(example, problem.device).peek()
        if sample is None:
            raise ValueError("expected an example of at least one sample, got none")
        watch = watched(problem, sample.args, sample.kwargs)
        plan = plan_for(problem, sample.args, sample.kwargs)
    ways = {site.weight: site.way for site in plan.sites}
    beside = {site.bias for site in plan.sites}
    uses = watch.uses()
    rows = []
    for name, p in problem.params.items():
        calls = uses.get(name, [])
        open_ways = {way: 2 * cost for way, cost in ways_of(calls, rule.linear).items()} if calls else {}
        way = ways.get(name, "beside" if name in beside else "direct")
        rows.append(
            Row(
                name,
                tuple(p.shape),
                type(calls[0][0].layer).__name__.lower() if calls else "-",
                sum(_positions(use)[1] for use in calls),
                way,
                open_ways.get(way),
                _kept(way, p, calls),
                {} if name in watch.loose else open_ways,
            )
        )
    forward = sum(2.0 * math.prod(row.shape) * row.positions for row in rows if row.layer in ("conv", "linear"))
    inputs = sample.args[0] if len(sample.args) == 1 else [(tuple(a[0] for a in sample.args), 0)]
    scored = score(
        inner,
        sample.kwargs or inputs,
        rho,
        norm=norm,
        adaptive=adaptive,
        params=params,
        task=task,
        precision=precision,
        device=device,
        progress=False,
        details=True,
        on_nonfinite="keep",
    )
    return Explanation(tuple(rows), forward, scored.fallback)


def _positions(use: Use) -> tuple[int, int]:
    """Groups and positions of one use."""
    call, shape = use
    groups, _, positions = call.layer.rows(torch.empty(shape, device="meta")).shape
    return groups, positions


def _kept(way: str, p: torch.Tensor, calls: list[Use]) -> int:
    """Bytes a sample: the Gram matrices, or copies of the gradient."""
    if way == "grams":
        return int(p.element_size() * sum(2 * groups * t * t for groups, t in map(_positions, calls)))
    copies = {"held": 1, "direct": 4}.get(way, 0)
    return int(copies * p.element_size() * math.prod(p.shape))


def _cells(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    flops = "" if row.flops is None else f"{row.flops / 1e6:,.2f}"
    others = ", ".join(f"{way} {cost / 1e6:,.2f}" for way, cost in row.others.items() if way != row.way)
    shape = "×".join(map(str, row.shape))
    return (row.name, shape, row.layer, str(row.positions or ""), row.way, flops, f"{row.kept / 1e3:,.0f}", others)
