"""What is scored, and what a score consists of: the ground the engines share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ..models.uninterrupted import uninterrupted
from ..ops.cross_entropy.reference import MIN_LOSS
from ..perturbation import Perturbation
from ..pools import Batch
from ..tasks import Task, tensors_of
from .batched import flag_of, of_each
from .findings import Findings
from .habits import NO_HABITS, Habits, SlowPaths, StandIns
from .last_layer import LastLinear

PRECISIONS = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of passes under autocast, by the names that users give them."""


class EngineError(RuntimeError):
    """An engine cannot run this model; the message names the cause."""


class KeptError(EngineError):
    """A model keeps what one pass has computed from its weights where nothing can empty it."""


class Result(NamedTuple):
    """What an engine finds for a batch; every tensor has the batch as first dimension."""

    perturbed_loss: Tensor  # [B]
    loss: Tensor  # [B]
    grad_norm: Tensor  # [B], the dual norm of the perturbation rule
    label: Any  # the label of both losses: [B], or the task's own pytree
    perturbed_label: Any
    finite: Tensor  # [B] bool: outputs and losses hold neither NaN nor inf
    embedding: tuple[Tensor, ...] = ()  # (a [B, C], h [B, D]) where `Problem.embeddings` asks for it, see `last_layer.py`


@dataclass(frozen=True)
class Problem:
    """A model seen as a function of the parameters to perturb, with the rule and the task.

    Attributes:
        model: called through `functional_call`; never changed.
        params: the parameters to perturb, detached; the model's own memory where it lies on the device.
        others: the model's other parameters, detached, and its buffers where they had to be copied to the device.
        rule: what ε* is.
        task: pseudo-label and loss.
        device: where it is scored.
        precision: of passes under autocast; None for the model's own type.
        embeddings: whether results carry the gradient by the last linear layer.
        habits: what the model does beside reading inputs and registered parameters.
        findings: what passes over one sample have shown of it.
    """

    model: nn.Module
    params: dict[str, Tensor]
    others: dict[str, Tensor]
    rule: Perturbation
    task: Task
    device: torch.device
    precision: torch.dtype | None = None
    embeddings: bool = False
    habits: Habits = NO_HABITS
    findings: Findings = field(default_factory=Findings, compare=False)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        rule: Perturbation,
        task: Task,
        chosen: Callable[[str], bool] | None = None,
        device: torch.device | None = None,
        precision: torch.dtype | None = None,
        embeddings: bool = False,
    ) -> Problem:
        """The problem of perturbing all trainable parameters, or those whose name `chosen` accepts.

        Args:
            model: any module.
            rule: what ε* is.
            task: pseudo-label and loss.
            chosen: says by a parameter's name whether to perturb it.
            device: where to score; None for where the first parameter lies. The model itself stays where it is.
            precision: bfloat16 or float16 for passes under autocast; None for the model's own type.
            embeddings: whether results carry the gradient by the last linear layer.

        Raises:
            ValueError: there is no trainable parameter, or none is chosen; a parameter or buffer is on meta.
            TypeError: a parameter to perturb is no floating-point tensor, or none of the type that `precision` is for.
        """
        trainable = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        if not trainable:
            raise ValueError(
                f"expected a model with trainable parameters, got {type(model).__name__} with none "
                "(has requires_grad_(False) been called?)"
            )
        params = {n: p for n, p in trainable.items() if chosen is None or chosen(n)}
        if not params:
            names = ", ".join(list(trainable)[:5])
            raise ValueError(
                f"expected params= to accept at least one of the {len(trainable)} trainable parameters, got none. "
                f"Their names begin: {names}"
            )
        for name, p in params.items():
            if not p.is_floating_point():
                raise TypeError(f"expected floating-point parameters, got {name} as {p.dtype}")
        device = next(iter(params.values())).device if device is None else device
        if precision is not None:
            _check_precision(params, device, precision)
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        empty = next((n for n, t in state.items() if t.is_meta), None)
        if empty is not None:
            raise ValueError(
                f"expected a model whose parameters and buffers have values, got {empty} on meta: materialise the model "
                "first (model.to_empty(device=...), then load_state_dict)"
            )
        fit = {n: _fit(t, device) for n, t in state.items()}
        others = {n: t.detach() for n, t in fit.items() if n not in params and (t is not state[n] or t.requires_grad)}
        return cls(model, {n: fit[n].detach() for n in params}, others, rule, task, device, precision, embeddings)

    def versions(self) -> list[int]:
        """How often each parameter of the model was written to."""
        return [p._version for p in self.model.parameters() if not p.is_inference()]

    def recorded(self) -> dict[str, Tensor]:
        """The parameters, so that a pass with them is recorded for gradients: code that asks for a graph finds one."""
        return {name: standing_for(name, p.detach()) for name, p in self.params.items()}

    def output(self, params: dict[str, Tensor], sample: Batch) -> Any:
        """The model's output with `params` for its own, gradients enabled; inputs are copied: the model may write to them.

        Whether gradients are recorded depends on the parameters alone, so that a model that asks `torch.is_grad_enabled`
        answers the same in both passes.
        """
        sample = sample.map(lambda t: t.detach().clone())
        with torch.enable_grad():
            if self.precision is None:
                return self._call(params, sample)
            with torch.autocast(self.device.type, self.precision, cache_enabled=False):
                output = self._call(params, sample)
            return tree_map(_widened, output)

    def _call(self, params: dict[str, Tensor], sample: Batch) -> Any:
        tensors, habits = {**self.others, **params}, self.habits
        if habits.writes:
            flag = flag_of(sample.tensors[0])
            tensors |= {name: of_each(self._buffer(name), flag) for name in habits.writes}
        if not (habits.stand_ins or habits.keeps or habits.aliased or habits.inference):
            return functional_call(self.model, tensors, sample.args, sample.kwargs)
        with ExitStack() as stack:
            if habits.keeps:  # not after the pass, whose backward pass may need what it has written
                habits.keeps.restore()
            if habits.inference:
                stack.enter_context(SlowPaths())
            if habits.aliased:
                stack.enter_context(self._moved(params))
                return self.model(*sample.args, **sample.kwargs)
            if not habits.stand_ins:
                return functional_call(self.model, tensors, sample.args, sample.kwargs)
            originals = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
            stack.enter_context(StandIns({id(originals[name]): t for name, t in tensors.items()}))
            return functional_call(self.model, tensors, sample.args, sample.kwargs)

    def until_backward(self, params: dict[str, Tensor]) -> AbstractContextManager[None]:
        """Within it, the model's modules hold `params`: code of its own in the backward pass may read them there."""
        if self.habits.aliased or not self.habits.own_backward:
            return nullcontext()
        return _reparametrize_module(self.model, {**self.others, **params}, tie_weights=True)

    def _buffer(self, name: str) -> Tensor:
        """A buffer, on the device."""
        return self.others[name] if name in self.others else self.model.get_buffer(name)

    def own_parameters(self) -> dict[str, Tensor]:
        """The model's own Parameter objects of those to perturb.

        Raises:
            EngineError: the parameters that are scored are copies on another device.
        """
        own: dict[str, Tensor] = {name: p for name, p in self.model.named_parameters() if name in self.params}
        for name, p in own.items():
            if p.data_ptr() != self.params[name].data_ptr():
                raise EngineError(
                    f"the model reads {', '.join(self.habits.aliased[:3])} through tensors that are no Parameter; expected "
                    f"such a model to lie where it is scored, on {self.device}, got {name} on {p.device}"
                )
        return own

    def _moved(self, params: dict[str, Tensor]) -> AbstractContextManager[None]:
        """Within it, the model's own parameters hold other numbers; their versions do not count it."""
        moved = [(p.data, params[name]) for name, p in self.own_parameters().items() if params[name] is not p]
        kept = [memory.clone() for memory, _ in moved]

        @torch.no_grad()
        def enter() -> None:
            for memory, new in moved:
                memory.copy_(new)

        @torch.no_grad()
        def leave() -> None:
            for (memory, _), old in zip(moved, kept, strict=True):
                memory.copy_(old)

        return uninterrupted(enter, leave)

    def loss_scale(self, loss: Tensor) -> Tensor:
        """`loss_scale`; 1 where the model's backward pass may not be linear."""
        return torch.ones_like(loss, requires_grad=False) if self.habits.own_backward else loss_scale(loss)

    def watch_last_layer(self) -> AbstractContextManager[LastLinear | None]:
        """Within it, passes keep what the last linear layer's gradient is made of; None where nobody asks for it."""
        return LastLinear() if self.embeddings else nullcontext()


class Engine(Protocol):
    """Scores batches of one problem."""

    def __call__(self, batch: Batch) -> Result:
        """Scores a batch under its own labels, or under pseudo-labels where it has none."""
        ...

    def sample_bytes(self, example: Batch) -> int:
        """Memory in bytes that a sample of a batch takes in addition to its activations."""
        ...


def standing_for(name: str, values: Tensor) -> Tensor:
    """A tensor of these values that requires gradients, and says in its graph, however old, for which parameter it stood."""
    leaf: Any = values.requires_grad_()
    leaf.stands_for = name
    return cast(Tensor, leaf)


def _check_precision(params: dict[str, Tensor], device: torch.device, precision: torch.dtype) -> None:
    name = next(name for name, dtype in PRECISIONS.items() if dtype == precision)
    for n, p in params.items():
        if p.dtype != torch.float32:
            raise TypeError(f'expected a float32 model for precision="{name}", got {n} as {p.dtype}')
    if not torch.amp.is_autocast_available(device.type):
        raise ValueError(f'expected a device with autocast for precision="{name}", got {device}')
    if precision == torch.float16 and device.type != "cuda":
        raise ValueError(f'expected a CUDA device for precision="fp16", got {device} (there "bf16" is as fast, and safe)')


def _widened(value: Any) -> Any:
    """A model's output with numbers of half precision as float32, in which losses are taken; also within plain objects."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    if not hasattr(value, "__dict__") or isinstance(value, type):
        return value
    wide = copy.copy(value)
    vars(wide).update({name: tree_map(_widened, held) for name, held in vars(value).items()})
    return wide


def finite(output: Any, loss: Tensor) -> Tensor:
    """Whether one sample's output and loss hold neither NaN nor inf; 0-d bool."""
    return torch.stack([t.isfinite().all() for t in (loss, *tensors_of(output))]).all()


def _fit(t: Tensor, device: torch.device) -> Tensor:
    """The tensor where and as it can be used: on the device, and none of inference mode, which autograd refuses."""
    if t.is_inference():
        return t.detach().to(device, copy=True)
    return t if t.device == device else t.detach().to(device)


def constant(label: Any) -> Any:
    """A label through which no gradient flows."""
    return tree_map(lambda t: t.detach() if isinstance(t, Tensor) else t, label)


def keep_loss_where_no_step(perturbed: Tensor, loss: Tensor, step: Tensor) -> Tensor:
    """The perturbed loss, or the loss itself, to the last bit, where no step is taken (ρ = 0, no gradient)."""
    return torch.where(step == 0, loss, perturbed)


def concatenate(results: Sequence[Result]) -> Result:
    """The results of several batches as those of one."""
    tensors = {
        name: torch.cat([getattr(r, name) for r in results]) for name in ("perturbed_loss", "loss", "grad_norm", "finite")
    }
    return Result(
        **tensors,
        label=join([r.label for r in results]),
        perturbed_label=join([r.perturbed_label for r in results]),
        embedding=tuple(map(torch.cat, zip(*(r.embedding for r in results), strict=True))),
    )


def join(labels: Sequence[Any]) -> Any:
    """The labels of several batches as one pytree, or as a list where shapes differ (a varying number of boxes)."""
    trees = [tree_flatten(label) for label in labels]
    leaves = list(zip(*(leaves for leaves, _ in trees), strict=False))
    if all(spec == trees[0][1] for _, spec in trees) and all(map(_fit_together, leaves)):
        return tree_unflatten([torch.cat(parts) for parts in leaves], trees[0][1])
    return [one for label in labels for one in (label if isinstance(label, list) else [label])]


def _fit_together(parts: Sequence[Any]) -> bool:
    """Whether these are tensors that differ in their first dimension at most."""
    return all(isinstance(t, Tensor) and t.ndim > 0 for t in parts) and len({(t.shape[1:], t.device) for t in parts}) == 1


def loss_scale(loss: Tensor) -> Tensor:
    """Loss scale applied before backward (0-d, no gradient), so that tiny gradients do not underflow.

    ε* depends on the gradient's direction alone, and `1/l` brings the gradient of a nearly certain sample (1e-26 and
    smaller) back to where its square still is a number. The scale is limited so that neither it nor its square overflows.
    """
    return loss.detach().abs().clamp(MIN_LOSS, 1.0).reciprocal().nan_to_num(1.0)
