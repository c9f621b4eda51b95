"""Functions with a backward pass of their own (`torch.autograd.Function`) under `vmap`.

torch runs a class of these inside its transforms only where `forward` leaves the context to `setup_context` and the class
says how `vmap` is to run it; few do. In the engines' passes one sample's autograd graph lies inside one `vmap`, and there
any class can run as it is written, in one of two ways:

    on the pass's own tensors   `forward` and `backward` run operation by operation under `vmap`; the graph of the one sample
                                holds the context, torch's own
    sample by sample            where they do what `vmap` cannot (NumPy, values, kernels of their own): each sample's plain
                                tensors go through the class by themselves, and so do their gradients

Either gives what the class's own backward pass gives, also where that is no derivative of its forward pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch._functorch.utils import enable_single_level_autograd_function

from .._utils.failures import is_from_handler
from .._utils.logs import log
from ..models import memory
from ..models.switch import Switch
from .branches import Diverged
from .problem import EngineError

torchs: Any = torch.autograd.function  # where torch looks what is changed here up

PASSES = ([TransformType.Vmap], [TransformType.Vmap, TransformType.Grad])
"""The transforms that a pass of an engine lies in, from the outermost."""

FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, Diverged)
"""What code raises that `vmap` cannot run."""


class RunAgain(Exception):  # noqa: N818 - says what the pass is to do; not an error, where it is met by another try
    """A class cannot run on the tensors of a pass; in the next try its samples run one by one."""


def any_function() -> AbstractContextManager[None]:
    """Within it, engines' passes run any class of `torch.autograd.Function`."""
    return _switch.within()


def in_forward() -> bool:
    """Whether the `forward` of such a class is under way, outside of transforms: it alone turns forward gradients off."""
    return not torch._C._is_fwd_grad_enabled() and not torch.is_inference_mode_enabled()


# --- how torch is made to ask ---------------------------------------------------------------------------------------


class _Seen:
    """An attribute of all classes of functions, as torch sees it: inside transforms, each class has a `setup_context`.

    torch refuses a class without one before anything else; a class that is refused cannot be replaced, since code may keep
    its bound `apply`. An attribute of the metaclass comes before those of the classes.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, cls: Any, owner: Any = None) -> Any:
        if cls is None:
            return self
        own = _own(cls, self.name)
        if not torch._C._are_functorch_transforms_active() or not _combined(cls):
            return own
        return _any_arguments(own)  # torch fills in defaults by the signature, which would be arguments more

    def __set__(self, cls: Any, value: Any) -> None:
        with _lock:
            delattr(torchs.FunctionMeta, self.name)
            try:
                setattr(cls, self.name, value)
            finally:
                setattr(torchs.FunctionMeta, self.name, self)

    def __delete__(self, cls: Any) -> None:
        with _lock:
            delattr(torchs.FunctionMeta, self.name)
            try:
                delattr(cls, self.name)
            finally:
                setattr(torchs.FunctionMeta, self.name, self)


def _any_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def _own(cls: type, name: str) -> Any:
    """A class's attribute, as Python itself looks it up."""
    for kind in cls.__mro__:
        if name in vars(kind):
            value = vars(kind)[name]
            return value.__get__(None, cls) if hasattr(value, "__get__") else value
    raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")


_no_setup = _own(torchs._SingleLevelFunction, "setup_context")


def _combined(cls: type) -> bool:
    """Whether a class's `forward` takes the context."""
    return issubclass(cls, torchs.Function) and cls is not torchs.Function and _own(cls, "setup_context") is _no_setup


_NOT_COPIED = ("__dict__", "__weakref__", "_backward_cls")
_lock = threading.Lock()
_by_sample: set[tuple[str, str]] = set()  # names of classes that `vmap` cannot run; a pass may make its classes anew
_as_written: dict[type, type] = {}


def _turn_on() -> Callable[[], None]:
    original = torchs.custom_function_call

    def call(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if not torch._C._are_functorch_transforms_active() or _has_rule(cls) or not _in_pass():
            return original(cls, *args, **kwargs)
        return _run(cls, args, kwargs)

    def off() -> None:
        with _lock:
            torchs.custom_function_call = original
            for name in ("setup_context", "forward"):
                if name in vars(torchs.FunctionMeta):
                    delattr(torchs.FunctionMeta, name)
            _by_sample.clear()
            _as_written.clear()

    with _lock:
        torchs.custom_function_call = call
        for name in ("setup_context", "forward"):
            setattr(torchs.FunctionMeta, name, _Seen(name))
    return off


_switch = Switch(_turn_on)


def _has_rule(cls: Any) -> bool:
    """Whether a class says how torch's transforms run it."""
    return not _combined(cls) and bool(cls.generate_vmap_rule or _own(cls, "vmap") is not torchs.Function.vmap)


def _in_pass() -> bool:
    return [level.key() for level in get_interpreter_stack() or ()] in PASSES


# --- the two ways ---------------------------------------------------------------------------------------------------


def _run(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if _name(cls) in _by_sample:
        if kwargs:
            raise TypeError(f"expected {cls.__name__}.apply to be given its arguments by position, got {', '.join(kwargs)}")
        samples = _Samples(cls, [isinstance(t, Tensor) and t.requires_grad for t in args])
        out = _Each.apply(samples, *args)
        return out if samples.several else out[0]
    if cls not in _as_written:
        _as_written[cls] = _written(cls)
    with enable_single_level_autograd_function():
        return _as_written[cls].apply(*args, **kwargs)  # type: ignore[attr-defined] # torch's own


def _name(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _written(cls: Any) -> type:
    """A class that does the same for one level of transforms, and raises `RunAgain` where `vmap` cannot run it."""
    own: dict[str, Any] = {}
    for kind in reversed(cls.__mro__[: cls.__mro__.index(torchs.Function)]):
        own |= {name: value for name, value in vars(kind).items() if name not in _NOT_COPIED}
    for name in ("forward", "backward", "vjp"):
        if _own(cls, name) is not _own(torchs.Function, name):
            own[name] = staticmethod(partial(_guarded, cls, _own(cls, name)))
    if not _combined(cls):
        own["setup_context"] = staticmethod(_own(cls, "setup_context"))
    written: type = type(cls)(cls.__name__, (torchs._SingleLevelFunction,), own)
    return written


def _guarded(cls: type, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except FAILURES as error:
        if isinstance(error, EngineError) or memory.exhausted(error) or is_from_handler(error):
            raise
        _by_sample.add(_name(cls))
        log.info("%s runs sample by sample: %s: %s", cls.__name__, type(error).__name__, str(error).partition("\n")[0])
        raise RunAgain(cls.__name__) from error


class _Samples:
    """Each sample's own call of a class, with its graph.

    Args:
        cls: the class.
        needs: which of the arguments need a gradient.

    Attributes:
        several: whether the class gives a tuple.
        differentiable: which of the outputs have a gradient.
        calls: of each sample, the arguments that need a gradient, and the outputs; of one, where all samples share them.
    """

    def __init__(self, cls: Any, needs: list[bool]) -> None:
        self.cls, self.needs = cls, needs
        self.several = False
        self.differentiable: list[bool] = []
        self.calls: list[tuple[list[Tensor], tuple[Any, ...]]] = []

    def run(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The outputs for one sample."""
        with torch.enable_grad():
            given = [a.detach().requires_grad_() if need else a for a, need in zip(args, self.needs, strict=True)]
            made = self.cls.apply(*given)
        self.several = isinstance(made, tuple)
        outputs = made if isinstance(made, tuple) else (made,)
        self.differentiable = [isinstance(out, Tensor) and out.requires_grad for out in outputs]
        self.calls.append(([a for a, need in zip(given, self.needs, strict=True) if need], outputs))
        return tuple(out.detach() if isinstance(out, Tensor) else out for out in outputs)

    def gradients(self, i: int, grads: tuple[Any, ...]) -> tuple[Tensor, ...]:
        """What the class's backward pass gives for one sample's arguments that need a gradient."""
        shared = len(self.calls) == 1
        leaves, outputs = self.calls[0 if shared else i]
        pairs = [(out, g) for out, g in zip(outputs, grads, strict=True) if g is not None and out.requires_grad]
        if not pairs:
            return tuple(map(torch.zeros_like, leaves))
        roots, slopes = zip(*pairs, strict=True)
        found = torch.autograd.grad(roots, leaves, slopes, allow_unused=True, retain_graph=shared)
        return tuple(torch.zeros_like(a) if g is None else g for a, g in zip(leaves, found, strict=True))


class _Each(torch.autograd.Function):
    """A class's outputs, as a tuple, from each sample's call by itself."""

    @staticmethod
    def forward(samples: _Samples, *args: Any) -> Any:
        return samples.run(args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.samples = inputs[0]
        ctx.set_materialize_grads(False)
        pairs = zip(output, inputs[0].differentiable, strict=True)
        ctx.mark_non_differentiable(*(out for out, kept in pairs if isinstance(out, Tensor) and not kept))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        found = iter(_EachBackward.apply(ctx.samples, *grads))
        return None, *(next(found) if need else None for need in ctx.samples.needs)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], samples: _Samples, *args: Any) -> Any:
        return _stacked([samples.run(_row(args, in_dims[1:], i)) for i in range(info.batch_size)])


class _EachBackward(torch.autograd.Function):
    """The gradients of `_Each`."""

    @staticmethod
    def forward(samples: _Samples, *grads: Any) -> Any:
        return samples.gradients(0, grads)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], samples: _Samples, *grads: Any) -> Any:
        return _stacked([samples.gradients(i, _row(grads, in_dims[1:], i)) for i in range(info.batch_size)])


def _row(values: tuple[Any, ...], dims: tuple[int | None, ...], i: int) -> tuple[Any, ...]:
    """One sample's values."""
    return tuple(v if dim is None else v.select(dim, i) for v, dim in zip(values, dims, strict=True))


def _stacked(rows: list[tuple[Any, ...]]) -> tuple[tuple[Any, ...], tuple[int | None, ...]]:
    """The samples' outputs as a batch's, and its dimensions; what is no tensor is that of the first sample."""
    columns = list(zip(*rows, strict=True))
    tensors = [isinstance(column[0], Tensor) for column in columns]
    values = tuple(torch.stack(column) if t else column[0] for column, t in zip(columns, tensors, strict=True))
    return values, tuple(0 if t else None for t in tensors)
