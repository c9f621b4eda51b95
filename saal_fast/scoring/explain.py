"""`explain`: how the ghost engine takes each parameter of a model, and what that costs."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from typing_extensions import Unpack

from .._utils.eager import outside_compile
from ..engines import Problem
from ..engines.as_written import as_written
from ..engines.ghost.parts import Use
from ..engines.ghost.plan import Plan, UsageRecorder, mode_costs, plan_for, record_usage
from ..models.ambient import own_precision
from ..models.state import module_of, preserve_state
from ..pools import Batch, Stream
from .check_task import check_task
from .options import ProblemOptions, ScoreOptions, check_names, with_options
from .score import score_pool


@dataclass(frozen=True)
class Row:
    """One parameter.

    Attributes:
        name: as in `model.named_parameters()`.
        shape: of the parameter.
        layer: the layer family that uses it, "conv", "linear", ...; "-" for a parameter that none does.
        positions: T, how often a sample's forward pass uses each of its numbers.
        mode: "ghost", "tiled" or "materialized" (factored, see README.md, "How it works"), "with_weight" (a bias whose
            gradient travels with its weight's), or "autograd".
        flops: floating-point operations a sample that the mode adds to the passes every sample needs; None where not known.
        kept: bytes a sample that the mode stores.
        others: FLOPs of every possible mode, the chosen one included.
    """

    name: str
    shape: tuple[int, ...]
    layer: str
    positions: int
    mode: str
    flops: float | None
    kept: int
    others: dict[str, float]


@dataclass(frozen=True)
class Explanation:
    """How each parameter is taken; printing it gives a table.

    Attributes:
        rows: the perturbed parameters, in the model's order.
        forward: FLOPs a sample of one forward pass through the layers that factor.
        fallback: why the reference engine scores this model instead; None where ghost does.
        hooked: perturbed parameters with gradient hooks (`register_hook`, `register_post_accumulate_grad_hook`), which do
            not run while a model is scored: engines differentiate by tensors that stand in for the parameters.
    """

    rows: tuple[Row, ...]
    forward: float
    fallback: str | None
    hooked: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = ("parameter", "shape", "layer", "T", "mode", "MFLOP", "kB", "open modes (MFLOP)")
        lines = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        added = sum(row.flops or 0 for row in self.rows)
        table += [
            f"{added / 1e6:,.1f} MFLOP a sample added to three passes (forward, back to the data, perturbed forward) of "
            f"{self.forward / 1e6:,.1f} each",
            f"engine: {'ghost' if self.fallback is None else 'reference, since ' + self.fallback}",
        ]
        if self.hooked:
            table.append(f"gradient hooks that don't run while scoring: those of {', '.join(self.hooked)}")
        return "\n".join(table)


@outside_compile
@with_options(ProblemOptions)
def explain(model: nn.Module, example: Any, *, rho: float = 0.05, **options: Unpack[ProblemOptions]) -> Explanation:
    """How `score` would take a model's parameters: factored, formed in tiles, kept, or differentiated by autograd.

    Args:
        model: as for `score`; it comes back as it was.
        example: a pool as for `score`; its first sample is run.
        rho: as for `score`.
        **options: norm, adaptive, params, task, precision and device, as for `score`.

    Returns:
        An `Explanation`; print it.

    Raises:
        ValueError: the example is empty; and as `score`.
        TypeError: as `score`.
    """
    check_names(options, ProblemOptions, "explain")
    chosen = ScoreOptions(rho=rho, progress=False, on_nonfinite="keep", check=False, **options)
    inner = module_of(model)
    with preserve_state(inner), as_written(inner), torch.inference_mode(False), torch.no_grad(), ExitStack() as ambient:
        problem = chosen.problem(inner)
        ambient.enter_context(own_precision(problem.device))
        sample = Stream(example, problem.device).peek()
        if sample is None:
            raise ValueError("expected an example of at least one sample, got none")
        problem = check_task(problem, sample, None).problem
        if problem.habits.keeps:
            ambient.callback(problem.habits.keeps.restore)
        usage, plan = record_usage(problem, sample), plan_for(problem, sample)
    rows = _rows(problem, usage, plan)
    forward = sum(2.0 * math.prod(row.shape) * row.positions for row in rows if row.layer in ("conv", "linear"))
    hooked = tuple(name for name, p in inner.named_parameters() if name in problem.params and _has_hooks(p))
    return Explanation(rows, forward, score_pool(inner, _pool_of(sample), chosen).fallback, hooked)


def _rows(problem: Problem, usage: UsageRecorder, plan: Plan) -> tuple[Row, ...]:
    modes = {call.weight: call.mode for call in plan.calls}
    biases = {call.bias for call in plan.calls}
    uses = usage.uses()
    rows = []
    for name, p in problem.params.items():
        calls = uses.get(name, [])
        costs = {mode: 2 * cost for mode, cost in mode_costs(calls, problem.rule.linear).items()} if calls else {}
        mode = modes.get(name, "with_weight" if name in biases else "autograd")
        rows.append(
            Row(
                name,
                tuple(p.shape),
                type(calls[0][0].layer).__name__.lower() if calls else "-",
                sum(_positions(use)[1] for use in calls),
                mode,
                costs.get(mode),
                _kept(mode, p, calls),
                {} if name in usage.untracked else costs,
            )
        )
    return tuple(rows)


def _has_hooks(p: torch.Tensor) -> bool:
    return bool(p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None))


def _pool_of(sample: Batch) -> Any:
    """A batch of one as a pool."""
    if sample.kwargs or len(sample.args) == 1:
        return sample.kwargs or sample.args[0]
    return [(tuple(a[0] for a in sample.args), 0)]


def _positions(use: Use) -> tuple[int, int]:
    """Groups and positions of one use."""
    call, shape = use
    groups, _, positions = call.layer.flatten_grad(torch.empty(shape, device="meta")).shape
    return groups, positions


def _kept(mode: str, p: torch.Tensor, calls: list[Use]) -> int:
    """Bytes a sample: the Gram matrices, or copies of the gradient."""
    if mode == "ghost":
        return int(p.element_size() * sum(2 * groups * t * t for groups, t in map(_positions, calls)))
    copies = {"materialized": 1, "autograd": 4}.get(mode, 0)
    return int(copies * p.element_size() * math.prod(p.shape))


def _cells(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    flops = "" if row.flops is None else f"{row.flops / 1e6:,.2f}"
    others = ", ".join(f"{mode} {cost / 1e6:,.2f}" for mode, cost in row.others.items() if mode != row.mode)
    shape = "×".join(map(str, row.shape))
    return (row.name, shape, row.layer, str(row.positions or ""), row.mode, flops, f"{row.kept / 1e3:,.0f}", others)
