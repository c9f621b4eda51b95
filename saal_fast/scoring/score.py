"""`score`: walks a pool in batches, hands them to an engine, gathers what comes back."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Number
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .. import perturbation
from .._utils.checks import check_choice, is_whole
from .._utils.progress import bar
from ..engines import ENGINES, NAMES, Engine, EngineError, Problem, Result
from ..engines.capture.recorder import graphed
from ..engines.problem import PRECISIONS, constant, join
from ..models import memory
from ..models.state import eager, untouched, unwrap
from ..pools import Batch, Stream
from ..tasks import ChecksLabels, Classification, Task
from .nonfinite import Check

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger("saal_fast")
_told: set[tuple[str, str]] = set()

T = TypeVar("T")
EngineName = Literal["auto", "ghost", "vmap", "reference"]
Precision = Literal["bf16", "fp16"]


@dataclass(frozen=True)
class Scores:
    """What scoring tells of each sample of a pool; tensors on the CPU, in the pool's order.

    Attributes:
        perturbed_loss: `max_{‖ε‖≤ρ} l(x, ŷ; θ+ε)` (Eq. 6); [N].
        loss: `l(x, ŷ; θ)`; [N].
        grad_norm: norm of the sample's gradient, dual to the perturbation's: ‖g‖₂ for norm=2, ‖g‖_q with 1/p + 1/q = 1 for
            norm=p, ‖|w|⊙g‖₂ for adaptive. The loss grows by `ρ · grad_norm` to first order (Theorem 3.3); [N].
        label: the label the losses were taken under: the pseudo-label ŷ, or the given one; int64 [N], or the task's nest.
        perturbed_label: what the perturbed model predicts; like `label`.
        finite: False where outputs or losses hold NaN or inf (only with `on_nonfinite="keep"`); bool [N].
        engine: name of the engine that scored.
        fallback: why it is not the one that "auto" tries first; None where it is.
    """

    perturbed_loss: Tensor
    loss: Tensor
    grad_norm: Tensor
    label: Any
    perturbed_label: Any
    finite: Tensor
    engine: str
    fallback: str | None

    @property
    def sharpness(self) -> Tensor:
        """Perturbed minus plain loss; [N]."""
        return self.perturbed_loss - self.loss

    def by(self, objective: Literal["max", "diff"]) -> Tensor:
        """What `score(objective=...)` gives; [N]."""
        return self.perturbed_loss if objective == "max" else self.sharpness

    def __len__(self) -> int:
        return len(self.perturbed_loss)


class Options(TypedDict, total=False):
    """The keywords of `score`, for functions that hand them on."""

    norm: float
    adaptive: bool
    objective: Literal["max", "diff"]
    labels: Any | None
    params: Callable[[str], bool] | None
    task: Task | None
    engine: EngineName
    batch_size: int | Literal["auto"]
    max_memory: int | None
    precision: Precision | None
    device: torch.device | str | None
    progress: bool | None
    on_nonfinite: Literal["raise", "keep"]


@overload
def score(
    model: nn.Module, pool: Any, rho: float = ..., *, details: Literal[True], **options: Unpack[Options]
) -> Scores: ...


@overload
def score(
    model: nn.Module,
    pool: Any,
    rho: float = ...,
    *,
    details: Literal[False] = ...,
    **options: Unpack[Options],
) -> Tensor: ...


@overload
def score(
    model: nn.Module, pool: Any, rho: float = ..., *, details: bool, **options: Unpack[Options]
) -> Tensor | Scores: ...


def score(
    model: nn.Module,
    pool: Any,
    rho: float = 0.05,
    *,
    norm: float = 2,
    adaptive: bool = False,
    objective: Literal["max", "diff"] = "max",
    labels: Any | None = None,
    params: Callable[[str], bool] | None = None,
    task: Task | None = None,
    engine: EngineName = "auto",
    batch_size: int | Literal["auto"] = "auto",
    max_memory: int | None = None,
    precision: Precision | None = None,
    device: torch.device | str | None = None,
    progress: bool | None = None,
    details: bool = False,
    on_nonfinite: Literal["raise", "keep"] = "raise",
) -> Tensor | Scores:
    """Scores each sample of a pool by its maximally perturbed loss (SAAL, Eq. 6).

    `max_{‖ε‖≤ρ} l(x, ŷ; θ+ε)` with ε by its first-order solution (Eq. 3), for each sample its own. The model is scored in
    eval mode and comes back as it was, bit for bit, however scoring ends.

    Args:
        model: any `nn.Module`. It may return logits [B, C], a tuple that starts with them, a mapping with `logits` or an
            object with `.logits`.
        pool: a tensor [N, ...], a mapping of tensors, a `Dataset`, a `DataLoader` (its own order is kept) or a sequence.
            Items are `x`, `(x, y)` or dicts; y is ignored. Dicts go in as keywords.
        rho: radius ρ of the ball the weights are pushed in, in the units of the weights; >= 0.
        norm: p of the ball's norm (Eq. 3), in (1, inf].
        adaptive: take the published code's step `ρ w²⊙g / ‖|w|⊙g‖`, which scales with the weights (ASAM, arXiv:2102.11600).
        objective: "max" for the perturbed loss, "diff" for perturbed minus plain loss.
        labels: None for pseudo-labels, or given labels [N].
        params: tells by a parameter's name whether to perturb it; None for all trainable parameters.
        task: pseudo-label and per-sample loss of an output; None for `Classification`.
        engine: "ghost" (factored gradients), "vmap" or "reference"; "auto" is ghost, and where `vmap` cannot run the model
            reference, which is logged and told in `Scores.fallback`. An engine asked for by name never falls back.
        batch_size: samples at once, or "auto" for a size by the memory the model's activations take. Where memory runs out
            all the same, batches are halved from there on, which is logged; what is scored already is kept.
        max_memory: bytes that a batch may take, for "auto", by estimate; None for 1,280 MiB on a CPU. It is never more than
            a quarter of what is free.
        precision: None for the model's own type; "bf16" or, on CUDA, "fp16" to run the passes under autocast
            (`torch.autocast`): faster where the hardware has matrix units for it, scores good to some three digits
            (docs/performance.md has the errors). For float32 models.
        device: where to score; None for where the model is. The model itself is not moved.
        progress: True or False shows or hides a progress bar; None shows it on long work in a terminal or notebook.
        details: give `Scores`, not only the scores.
        on_nonfinite: "raise", or "keep" NaN and inf scores as they are.

    Returns:
        Scores [N] on the CPU, float32 (float64 for float64 models), or `Scores` with `details`. Empty for an empty pool.

    Raises:
        TypeError: an argument is of another type than expected, or a pool's item cannot be a model's input.
        ValueError: an argument is out of range, the model has nothing to perturb, items differ in shape, labels do not fit,
            or the task's loss is not one number a sample.
        NonFiniteError: outputs or scores hold NaN or inf; the message names the first samples.
        EngineError: the engine asked for by name cannot run this model.
    """
    rule = perturbation.make(rho, norm, adaptive)
    check_choice("objective", objective, ("max", "diff"))
    check_choice("engine", engine, ("auto", *NAMES))
    check_precision(precision)
    check_choice("on_nonfinite", on_nonfinite, ("raise", "keep"))
    if batch_size != "auto" and (not is_whole(batch_size) or batch_size < 1):
        raise ValueError(f'expected batch_size to be "auto" or a whole number >= 1, got {batch_size!r}')
    if max_memory is not None and (not is_whole(max_memory) or max_memory < 1):
        raise ValueError(f"expected max_memory to be None or a whole number of bytes >= 1, got {max_memory!r}")
    if params is not None and not callable(params):
        raise TypeError(f"expected params to be a function of a parameter's name, or None; got {type(params).__name__}")
    if task is not None and (isinstance(task, type) or not isinstance(task, Task)):
        got = f"the class {task.__name__} itself" if isinstance(task, type) else type(task).__name__
        raise TypeError(f"expected task to be an object with methods pseudo_label and loss, got {got}")
    model = checked_model(model)
    with untouched(model), eager(), torch.inference_mode(False), torch.no_grad():
        problem = Problem.of(
            model,
            rule,
            Classification() if task is None else task,
            params,
            None if device is None else torch.empty(0, device=device).device,
            PRECISIONS[precision],
        )
        stream = Stream(pool, problem.device)
        given = _Labels(labels, stream.length, problem.device)
        example = stream.peek()
        if example is None:
            given.check_length(0)
            nothing = _empty(problem)
            return nothing if details else nothing.perturbed_loss
        _check_task(problem, example, given)
        runner = _Runner(problem, engine)
        size = runner.batch_size(example, stream.length, max_memory) if batch_size == "auto" else batch_size

        check = Check(problem.device)
        with memory.freed_is_kept(problem.device), bar(stream.length, progress) as shown:
            for batch in stream.batches(size):
                finite = runner.run(batch, given.of(batch))
                if on_nonfinite == "raise":
                    check.see(finite, batch)
                shown.update(batch.size)
            check.finish()
        scores = runner.scores()
    given.check_length(len(scores))
    return scores if details else scores.by(objective)


class _Runner:
    """Scores batch after batch with the engine asked for, or, on "auto", with reference where that engine cannot."""

    def __init__(self, problem: Problem, asked: EngineName) -> None:
        self.problem, self.asked = problem, asked
        self.name = "ghost" if asked == "auto" else asked
        engine = ENGINES[self.name](problem)
        self.engine = engine if self.name == "reference" else graphed(engine, problem.device)
        self.fallback: str | None = None
        self.largest: int | None = None  # batch that memory has been found to hold
        self.results: list[Result] = []

    def batch_size(self, example: Batch, length: int | None, max_memory: int | None) -> int:
        """A size whose memory fits the device and `max_memory`, for a pool of that length."""
        beside = self._attempt(lambda engine: engine.sample_bytes(example), example, None)
        problem = self.problem
        size = memory.batch_size(
            lambda: problem.output(problem.params, example.args, example.kwargs), problem.device, beside, max_memory
        )
        if not length:
            return size
        return math.ceil(length / math.ceil(length / size))  # no small rest: all batches of one size, or nearly

    def run(self, batch: Batch, labels: Any | None) -> Tensor:
        """Scores a batch, in parts where memory does not hold it, and keeps the results; which are finite, bool [B]."""
        finite = []
        begin = 0
        while begin < batch.size:
            part, given = _part(batch, labels, begin, begin + (self.largest or batch.size))
            try:
                result = self._attempt(lambda engine: engine(part, given), part, given)  # noqa: B023 - used within this turn
            except Exception as error:
                if part.size == 1 or not memory.exhausted(error):
                    raise
                self._halve(part.size)
                continue
            result = result._replace(finite=result.finite & result.grad_norm.isfinite())  # an overflowed norm pushes nowhere
            self.results.append(result)
            finite.append(result.finite)
            begin += part.size
        return torch.cat(finite)

    def _halve(self, size: int) -> None:
        self.largest = size // 2
        log.warning("memory ran out on a batch of %d samples: going on with batches of %d", size, self.largest)
        if self.problem.device.type == "cuda":
            torch.cuda.empty_cache()

    def _attempt(self, work: Callable[[Engine], T], batch: Batch, labels: Any | None) -> T:
        """What the engine makes of a batch.

        What an engine cannot do becomes a fallback on "auto", and an `EngineError` where the engine was asked for. An error
        that the reference raises too is the model's own, and is raised as it is; so is want of memory.
        """
        try:
            return work(self.engine)
        except Exception as error:
            if self.name == "reference" or memory.exhausted(error):
                raise
            reference = ENGINES["reference"](self.problem)
            reference(batch, labels)
            first = str(error).strip().partition("\n")[0]  # torch's compiler tells its whole stack
            reason = f"{self.name} cannot run {type(self.problem.model).__name__}: {type(error).__name__}: {first}"
            if self.asked != "auto":
                raise EngineError(reason) from error
            self._fall_back(reference, reason if not self.results else f"from sample {batch.start} on: {reason}")
        return work(self.engine)

    def _fall_back(self, reference: Engine, reason: str) -> None:
        self.name, self.engine, self.fallback = "reference", reference, reason
        told = f"scoring by the reference engine, many times slower: {reason}"
        _warn_once(type(self.problem.model).__qualname__, told)

    def scores(self) -> Scores:
        """All results, joined, on the CPU."""
        parts = [tree_map(lambda t: t.cpu(), r) for r in self.results]
        kinds = {r.perturbed_loss.dtype for r in parts}
        dtype = torch.float64 if torch.float64 in kinds else torch.float32
        numbers = {
            name: torch.cat([getattr(r, name) for r in parts]).to(dtype) for name in ("perturbed_loss", "loss", "grad_norm")
        }
        return Scores(
            **numbers,
            label=join([r.label for r in parts]),
            perturbed_label=join([r.perturbed_label for r in parts]),
            finite=torch.cat([r.finite for r in parts]),
            engine=self.name,
            fallback=self.fallback,
        )


def _warn_once(model: str, message: str) -> None:
    if (model, message) not in _told:
        _told.add((model, message))
        log.warning("%s", message)


class _Labels:
    """Given labels, dealt out batch by batch; or none."""

    def __init__(self, labels: Any | None, expected: int | None, device: torch.device) -> None:
        self.given = labels is not None
        self.labels: Any = tree_map(lambda t: _label(t, device), _nest(labels)) if self.given else ()
        if expected is not None:
            self.check_length(expected)

    def check_length(self, expected: int) -> None:
        """Raises ValueError where there are more or fewer labels than samples."""
        for t in tree_leaves(self.labels):
            got = t.shape[0] if t.ndim else "one number"
            if got != expected:
                raise ValueError(f"expected labels for the pool's {expected} samples, got {got}")

    def of(self, batch: Batch) -> Any | None:
        """The labels of a batch."""
        end = batch.start + batch.size
        for t in tree_leaves(self.labels):
            if t.ndim == 0 or t.shape[0] < end:
                raise ValueError(f"expected labels for all of the pool's samples, got {list(t.shape)} for {end} or more")
        return tree_map(lambda t: t[batch.start : end], self.labels) if self.given else None


def _nest(labels: Any) -> Any:
    """Labels as a nest of arrays; a list of numbers, or of tensors that are single numbers, is one array."""
    if isinstance(labels, (list, tuple)) and all(isinstance(y, Number) or getattr(y, "ndim", None) == 0 for y in labels):
        return torch.as_tensor([y.item() if isinstance(y, Tensor) else y for y in labels])
    return labels


def _label(value: Any, device: torch.device) -> Tensor:
    """One array of a nest of labels on the device; whole numbers as int64, what torch's losses take."""
    try:
        label = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected labels as a tensor or an array of numbers, got {value!r} ({error})") from error
    whole = not (label.is_floating_point() or label.is_complex() or label.dtype == torch.bool)
    label = label.detach().to(device, torch.int64 if whole else label.dtype)
    return label.clone() if label.is_inference() else label  # autograd refuses tensors of inference mode


def _check_task(problem: Problem, example: Batch, given: _Labels) -> None:
    """Runs the model once on one sample: the task must understand its output, the labels fit, the loss have a gradient."""
    task = problem.task
    params = {name: p.detach().requires_grad_() for name, p in problem.params.items()}
    with torch.enable_grad():
        try:
            output = problem.output(params, example.args, example.kwargs)
        except RuntimeError as error:
            _check_types(problem, example, error)
            raise
        if given.given and isinstance(task, ChecksLabels):
            task.check_labels(given.labels, output)
        loss = task.loss(output, constant(task.pseudo_label(output)))
    if not isinstance(loss, Tensor) or loss.shape != (1,) or not loss.is_floating_point():
        got = f"{loss.dtype} {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"expected {type(task).__name__}.loss to give one number a sample, [1] for a batch of one; got {got} "
            '(is it averaged? losses of torch.nn.functional need reduction="none")'
        )
    theta = [p for p in params.values() if p.requires_grad]
    grads = torch.autograd.grad(loss, theta, allow_unused=True) if theta and loss.requires_grad else ()
    if theta and all(g is None for g in grads):
        _warn_once(
            type(problem.model).__qualname__,
            "the first sample's loss does not depend on the parameters to perturb, so that its score is its plain loss: is "
            f"{type(problem.model).__name__} run under no_grad, or its output detached, or does it not use the parameters "
            "that params= accepts?",
        )


def _check_types(problem: Problem, example: Batch, error: RuntimeError) -> None:
    """Raises TypeError where a model fails because the pool holds numbers of another type than its weights."""
    mine = {p.dtype for p in problem.params.values()}
    theirs = {t.dtype for t in tree_leaves((example.args, example.kwargs)) if isinstance(t, Tensor)}
    if "type" in str(error) and not theirs & mine:
        got, expected = (", ".join(sorted(map(str, types))) for types in (theirs, mine))
        raise TypeError(f"expected a pool of the model's type, {expected}, got {got}: {error}") from error


def _part(batch: Batch, labels: Any | None, begin: int, end: int) -> tuple[Batch, Any | None]:
    """Samples [begin, end) of a batch, and their labels."""
    end = min(end, batch.size)
    if (begin, end) == (0, batch.size):
        return batch, labels
    args, kwargs, given = tree_map(
        lambda t: t[begin:end] if isinstance(t, Tensor) else t, (batch.args, batch.kwargs, labels)
    )
    return Batch(args, kwargs, end - begin, batch.start + begin), given


def _empty(problem: Problem) -> Scores:
    double = any(p.dtype == torch.float64 for p in problem.params.values())
    none, label = torch.empty(0, dtype=torch.float64 if double else torch.float32), torch.empty(0, dtype=torch.int64)
    return Scores(none, none, none, label, label, torch.empty(0, dtype=torch.bool), "none: the pool is empty", None)


def checked_model(model: nn.Module) -> nn.Module:
    """The model without its wrappers.

    Raises:
        TypeError: it is no eager module.
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"expected model to be an eager torch.nn.Module, got {type(model).__name__}")
    return unwrap(model)


def check_precision(precision: str | None) -> None:
    """Raises ValueError where it isn't one of those there are."""
    check_choice("precision", precision, tuple(PRECISIONS))
