"""`score`: walks a pool in batches, hands them to an engine, gathers the results."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from .._utils.checks import check_flag
from .._utils.eager import outside_compile
from .._utils.progress import bar
from ..engines import Problem
from ..engines.as_written import as_written
from ..engines.draws import Draws, own_generators
from ..models import memory
from ..models.ambient import own_precision, torch_stacks
from ..models.state import module_of, preserve_state
from ..pools import Stream
from .check_task import check_task
from .known import known_of
from .labels import GivenLabels
from .nonfinite import FiniteCheck
from .options import EngineName, Options, ScoreOptions, with_options
from .partial import Carrying, as_they_came
from .probabilities import warn_of_probabilities
from .result import Scores, gather, no_scores
from .runner import Runner
from .self_check import SelfCheck


@overload
def score(
    model: nn.Module,
    pool: Any,
    rho: float = ...,
    *,
    details: Literal[True],
    embeddings: bool = ...,
    **options: Unpack[Options],
) -> Scores: ...


@overload
def score(
    model: nn.Module,
    pool: Any,
    rho: float = ...,
    *,
    details: Literal[False] = ...,
    embeddings: Literal[False] = ...,
    **options: Unpack[Options],
) -> Tensor: ...


@overload
def score(
    model: nn.Module, pool: Any, rho: float = ..., *, details: bool, embeddings: bool = ..., **options: Unpack[Options]
) -> Tensor | Scores: ...


@outside_compile
@with_options(Options)
def score(
    model: nn.Module,
    pool: Any,
    rho: float = 0.05,
    *,
    details: bool = False,
    embeddings: bool = False,
    **options: Unpack[Options],
) -> Tensor | Scores:
    """Scores each sample of a pool by its maximally perturbed loss (SAAL, Eq. 6).

    `max_{‖ε‖≤ρ} l(x, ŷ; θ+ε)` with ε by its first-order solution (Eq. 3), for each sample its own. The model is scored in
    eval mode and comes back as it was, bit for bit, however scoring ends.

    Args:
        model: any `nn.Module`. It may return logits [B, C], a tuple that starts with them, a mapping with `logits` or an
            object with `.logits`. Gradient hooks of its parameters do not run: other tensors stand in for these.
        pool: a tensor [N, ...], a mapping of tensors, a `Dataset`, a `DataLoader` (its own order is kept) or a sequence.
            Items are `x`, `(x, y)` or dicts; y is ignored. Dicts go in as keywords.
        rho: radius ρ of the ball the weights are pushed in, in the units of the weights; >= 0.
        norm: p of the ball's norm (Eq. 3), in (1, inf].
        adaptive: take the published code's step `ρ w²⊙g / ‖|w|⊙g‖`, which scales with the weights (ASAM, arXiv:2102.11600).
        objective: "max" for the perturbed loss, "diff" for perturbed minus plain loss.
        labels: None for pseudo-labels, or given labels [N].
        params: says by a parameter's name whether to perturb it; None for all trainable parameters.
        task: pseudo-label and per-sample loss of an output; None for `Classification`.
        engine: "ghost" (factored gradients), "vmap" or "reference"; "auto" tries ghost and falls back to reference (logged;
            see `Scores.fallback`) where `vmap` cannot run the model or samples branch too differently. An engine asked for
            by name never falls back.
        batch_size: samples at once, or "auto" for a size by the memory the model's activations take. Where memory runs out
            all the same, batches are halved from there on, which is logged; what is scored already is kept.
        max_memory: bytes that a batch may take, for "auto", by estimate; None for 1,280 MiB on a CPU. It is never more than
            a quarter of what is free.
        precision: None for the model's own type; "bf16" or, on CUDA, "fp16" to run the passes under autocast
            (`torch.autocast`): faster where the hardware has matrix units for it, scores good to some three digits
            (docs/performance.md has the errors). For float32 models.
        device: where to score; None for where the model is. The model itself is not moved.
        progress: True or False shows or hides a progress bar; None shows it on long work in a terminal or notebook.
        details: return `Scores`, not only the scores.
        on_nonfinite: "raise", or "keep" NaN and inf scores as they are.
        embeddings: keep each sample's gradient by the last linear layer, of the same pass, in `Scores.embedding`; for
            classifiers whose logits a linear layer makes, with `task=None`.
        check: scores two samples a second way: the first, and the one with the largest gradient in the first batch. If they
            differ beyond rounding, "raise" raises and "warn" logs once; False skips this. Done once per model object and
            options; see `Scores.checked`.

    Returns:
        Scores [N] on the CPU, float32 (float64 for float64 models), or `Scores` with `details`. Empty for an empty pool.

    Raises:
        TypeError: an argument is of another type than expected, or a pool's item cannot be a model's input.
        ValueError: an argument is out of range, the model has nothing to perturb, items differ in shape, labels do not fit,
            or the task's loss is not one number a sample.
        NonFiniteError: outputs or scores hold NaN or inf; the message names the first samples.
        EngineError: the engine asked for by name cannot run this model.
        SelfCheckError: the engine's numbers are not those of plain autograd; the message names the sample and both.
        Exception: errors of the pool or the model are raised unchanged. Raised in the middle of a pool, they (and Ctrl-C)
            carry `sample` (the failing position, or its batch's first) and `scores_so_far`.
    """
    check_flag("details", details)
    chosen = replace(ScoreOptions.of(rho, options), embeddings=embeddings)
    if chosen.embeddings and not details:
        raise ValueError("expected details=True with embeddings=True: Scores.embedding has them")
    scores = score_pool(model, pool, chosen)
    return scores if details else scores.by(chosen.objective)


@as_they_came
def score_pool(
    model: nn.Module, pool: Any, options: ScoreOptions, make_runner: Callable[[Problem, EngineName], Runner] = Runner
) -> Scores:
    """`score(details=True)` of checked options; `make_runner` makes the runner of the problem and the engine's name."""
    model = module_of(model)
    with (
        preserve_state(model) as kept,
        as_written(model),
        torch.inference_mode(False),
        torch.no_grad(),
        ExitStack() as ambient,
        Carrying() as carrying,
    ):
        problem = carrying.problem = options.problem(model)
        ambient.enter_context(torch_stacks())
        ambient.enter_context(own_precision(problem.device))
        ambient.callback(Draws(own_generators(model), None).rewind)
        stream = Stream(pool, problem.device)
        labels = GivenLabels(options.labels, stream.length, problem.device)
        example = kept.watch(stream.peek)
        if example is None:
            labels.check_length(0)
            return no_scores(problem)
        known, given = known_of(problem, options, example), labels.labels if labels.given else None
        itself = SelfCheck(problem, options, make_runner, known)
        checked = kept.watch(partial(check_task, problem, example, given, known), times=3)
        problem = carrying.problem = checked.problem
        runner = carrying.runner = make_runner(problem, options.engine)
        ambient.callback(runner.put_back)
        size = options.batch_size
        if size == "auto":
            size = runner.batch_size(example, stream.length, options.max_memory)

        check = FiniteCheck(problem.device)
        with memory.freed_is_kept(problem.device), bar(stream.length, options.progress) as shown:
            for batch in stream.batches(size):
                finite = carrying.run(labels.attach(batch))
                if options.on_nonfinite == "raise":
                    check.see(finite, batch)
                if batch.start == 0:
                    itself.see(batch, runner.results[0])
                    if checked.probable:
                        warn_of_probabilities(problem, batch)
                shown.update(batch.size)
            check.finish()
        scores = replace(gather(runner.results, runner.name, runner.fallback), checked=itself.verdict)
    labels.check_length(len(scores))
    return scores
