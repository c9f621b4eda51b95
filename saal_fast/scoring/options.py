"""The options of `score`, checked once, in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, TypeVar, get_args

import torch
from torch import nn

from .. import perturbation
from .._utils.checks import check_batch_size, check_choice, check_device, check_flag, is_whole
from ..engines import NAMES, Problem
from ..engines.problem import PRECISIONS
from ..perturbation import Perturbation
from ..tasks import Classification, Task
from .result import Objective

EngineName = Literal["auto", "ghost", "vmap", "reference"]
Precision = Literal["bf16", "fp16"]
Function = TypeVar("Function", bound=Callable[..., Any])


class ProblemOptions(TypedDict, total=False):
    """The keywords that say what is perturbed, and how; `score` has them, and `explain`."""

    norm: float
    adaptive: bool
    params: Callable[[str], bool] | None
    task: Task | None
    precision: Precision | None
    device: torch.device | str | None


class Options(ProblemOptions, total=False):
    """The keywords of `score`, for functions that hand them on."""

    objective: Objective
    labels: Any | None
    engine: EngineName
    batch_size: int | Literal["auto"]
    max_memory: int | None
    progress: bool | None
    on_nonfinite: Literal["raise", "keep"]
    check: Literal["raise", "warn", False]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreOptions:
    """The options of one `score` call, validated on construction; `score` documents them.

    Raises:
        TypeError: an option is of another type than expected.
        ValueError: an option is out of range.
    """

    rho: float = 0.05
    norm: float = 2
    adaptive: bool = False
    objective: Objective = "max"
    labels: Any | None = None
    params: Callable[[str], bool] | None = None
    task: Task | None = None
    engine: EngineName = "auto"
    batch_size: int | Literal["auto"] = "auto"
    max_memory: int | None = None
    precision: Precision | None = None
    device: torch.device | str | None = None
    progress: bool | None = None
    on_nonfinite: Literal["raise", "keep"] = "raise"
    embeddings: bool = False
    check: Literal["raise", "warn", False] = "raise"

    def __post_init__(self) -> None:
        """Checks every option that can be checked without a model."""
        check_flag("adaptive", self.adaptive)
        check_flag("embeddings", self.embeddings)
        if self.progress is not None:
            check_flag("progress", self.progress)
        perturbation.make(self.rho, self.norm, self.adaptive)
        check_choice("objective", self.objective, get_args(Objective))
        check_choice("engine", self.engine, ("auto", *NAMES))
        check_choice("precision", self.precision, tuple(PRECISIONS))
        check_choice("on_nonfinite", self.on_nonfinite, ("raise", "keep"))
        check_choice("check", self.check, ("raise", "warn", False))
        check_device(self.device)
        check_batch_size(self.batch_size)
        if self.max_memory is not None and (not is_whole(self.max_memory) or self.max_memory < 1):
            raise ValueError(f"expected max_memory to be None or a whole number of bytes >= 1, got {self.max_memory!r}")
        params: Any = self.params
        if params is not None and not callable(params):
            got = type(params).__name__
            raise TypeError(f"expected params to be a function of a parameter's name, or None; got {got}")
        if self.task is not None and (isinstance(self.task, type) or not isinstance(self.task, Task)):
            got = f"the class {self.task.__name__} itself" if isinstance(self.task, type) else type(self.task).__name__
            raise TypeError(f"expected task to be an object with methods pseudo_label and loss, got {got}")
        if self.embeddings and self.task is not None:
            raise ValueError("expected task=None with embeddings=True: they are gradients of a class's cross-entropy")

    @classmethod
    def of(cls, rho: float, options: Options) -> ScoreOptions:
        """The options given by keywords.

        Raises:
            TypeError: there is no such option; and as the class.
            ValueError: as the class.
        """
        check_names(options, Options)
        return cls(rho=rho, **options)

    @property
    def rule(self) -> Perturbation:
        """The perturbation rule that `rho`, `norm` and `adaptive` ask for."""
        return perturbation.make(self.rho, self.norm, self.adaptive)

    def problem(self, model: nn.Module) -> Problem:
        """What is scored: the model with these options.

        Raises:
            ValueError: the device has no memory; and as `Problem.of`.
            TypeError: as `Problem.of`.
        """
        device = None if self.device is None else torch.empty(0, dtype=torch.float32, device=self.device).device
        if device is not None and device.type == "meta":
            raise ValueError("expected device to be one that computes, got meta, whose tensors have no values")
        return Problem.of(
            model,
            self.rule,
            Classification() if self.task is None else self.task,
            self.params,
            device,
            PRECISIONS[self.precision],
            self.embeddings,
        )


def check_names(options: Any, known: type, function: str = "score") -> None:
    """Raises TypeError where an option of `function` is none of the keywords of the TypedDict `known`."""
    names = set(known.__annotations__)
    unknown = sorted(set(options) - names)
    if unknown:
        raise TypeError(
            f"expected options of saal_fast.{function}, among {', '.join(sorted(names))}; got {', '.join(unknown)}"
        )


def with_options(known: type) -> Callable[[Function], Function]:
    """Shows the keywords of the TypedDict `known`, with their defaults, in a function's signature instead of `**options`."""

    def show(function: Function) -> Function:
        signature = inspect.signature(function)
        given = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        names = {p.name for p in given}
        options = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
            for f in fields(ScoreOptions)
            if f.name in known.__annotations__ and f.name not in names
        ]
        function.__signature__ = signature.replace(parameters=[*given, *options])  # type: ignore[attr-defined]
        return function

    return show
