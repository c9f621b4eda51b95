"""How a layer's weight gradient is kept as factors.

The convention of every file here:

    A [groups, D, T]   what the layer multiplies its weight with: D inputs per output, T positions of one sample
    G [groups, O, T]   the loss gradient at the layer's output
    G Aᵀ [groups, O, D] = [groups * O, D], the sample's weight gradient; with a bias, A has a further row of ones

Only `AᵀA'` [groups, T, T'], the Gram matrix of two inputs, is ever formed:

    ‖G Aᵀ‖² = ⟨AᵀA, GᵀG⟩                 the ghost norm (Goodfellow 2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679)
    (G Aᵀ) A' = G (Aᵀ A')                what the sample's own step adds to the output at another input

A layer family is one file: a frozen dataclass of its geometry, and a function that makes a `LayerCall` of a call to torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..batched import bare, is_batched
from ..branches import ANSWERS

Code = tuple[str, float]  # a rule's name and exponent, see `ops/common/elementwise.py`


class Layer(Protocol):
    """A layer's geometry: static, comparable, without tensors."""

    def unfold_input(self, x: Tensor) -> Tensor:
        """The layer's input as A [groups, D, T]."""
        ...

    def gram(self, a: Tensor, x: Tensor) -> Tensor:
        """`AᵀX` [groups, T, T'] of two inputs of this geometry."""
        ...

    def flatten_grad(self, g: Tensor) -> Tensor:
        """A tensor shaped as the layer's output, as G [groups, O, T]."""
        ...

    def unflatten_output(self, y: Tensor, like: Tensor) -> Tensor:
        """[groups, O, T] as a tensor shaped as the layer's output `like`; the inverse of `flatten_grad`."""
        ...

    def gram_flops(self, x: Tensor, positions: int) -> float:
        """Multiply-adds of `gram(x, x)` for `positions` = T."""
        ...

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight that calls of this geometry are given, as it is where each of its numbers has its place in `G Aᵀ`.

        Two calls with the same matrix have gradients that add up, however each is given the weight (`x @ W`, `W.T`).
        """
        ...


@runtime_checkable
class SupportsSharedWeight(Protocol):
    """A layer that computes its output faster where the batch shares the weight, and the weight needs no gradient."""

    def shared(self, call: LayerCall) -> Tensor | None:
        """The layer's output; None where the layer's own function is as fast."""
        ...


def output_of(call: LayerCall, run: Callable[[], Tensor]) -> Tensor:
    """The output of a layer whose weight the batch shares; `run` is the layer's own function."""
    out = call.layer.shared(call) if isinstance(call.layer, SupportsSharedWeight) else None
    return run() if out is None else out


@runtime_checkable
class SupportsTiles(Layer, Protocol):
    """A layer whose weight gradient can be formed tile by tile, for rules that act on it element by element."""

    def tiles(self, x: Tensor) -> bool:
        """Whether the fused operations know this geometry, for such an input."""
        ...

    def small(self, call: LayerCall) -> bool:
        """Whether `materialize` forms the gradient without tiles, since it is so small."""
        ...

    def tile_norm(self, a: Tensor, g: Tensor, weight: Tensor, code: Code) -> Tensor:
        """`Σ φ(G Aᵀ, W)` of a batch of one; 0-d. g is shaped as the layer's output."""
        ...

    def tile_apply(self, a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        """The layer's output at the input x with the weight `W + scale · δ(G Aᵀ, W)`, without a bias."""
        ...

    def materialize(self, a: Tensor, g: Tensor, weight: Tensor, code: Code) -> tuple[Tensor, Tensor]:
        """`tile_norm`, and `G Aᵀ` for `apply_materialized`, in whatever order suits it."""
        ...

    def materialize_flops(self, call: LayerCall, positions: int) -> float:
        """Multiply-adds by which `materialize` forms `G Aᵀ` for `positions` = T."""
        ...

    def apply_materialized(self, gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        """`tile_apply`, from what `materialize` gave."""
        ...

    def add_bias(self, out: Tensor, bias: Tensor) -> Tensor:
        """An output plus a bias [O]."""
        ...


@runtime_checkable
class SupportsGhost(Layer, Protocol):
    """A layer whose ghost norm and step fused operations compute, without Gram matrices or patches in memory (L2)."""

    def join_uses(self, uses: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        """Inputs and output gradients of several uses of one weight, as those of one use; None where that can't be."""
        ...

    def ghost_norm(self, a: Tensor, g: Tensor, bias: bool) -> Tensor:
        """`‖G Aᵀ‖²` of a batch of one; 0-d. With a bias, both inputs have a row of ones."""
        ...

    def ghost_apply(self, a: Tensor, g: Tensor, x: Tensor, scale: Tensor, base: Tensor, bias: bool) -> Tensor:
        """`base + scale · G (AᵀX')`, with base the layer's output at the input x."""
        ...


@runtime_checkable
class SupportsSharedProducts(Layer, Protocol):
    """A layer whose norm and step are made of the products of its inputs' rows, which layers of one input share."""

    def shares_products(self, *tensors: Tensor) -> bool:
        """Whether that is the fastest way, for an input and what it is multiplied with."""
        ...

    def products(self, x: Tensor, a: Tensor) -> Tensor:
        """`X'ᵀA` [groups, T', T] of two inputs."""
        ...

    def products_norm(self, products: Tensor, g: Tensor, bias: bool) -> Tensor:
        """`‖G Aᵀ‖²` of a batch of one, from `products(a, a)`; 0-d."""
        ...

    def products_output(self, products: Tensor, g: Tensor, call: LayerCall, scale: Tensor, bias: bool) -> Tensor:
        """The call's output after the step `scale · G Aᵀ`, from `products(call.input, a)`."""
        ...


@dataclass(frozen=True)
class LayerCall:
    """One use of a weight: `fn(input, weight, bias)` with a layer's geometry."""

    layer: Layer
    input: Tensor
    weight: Tensor
    bias: Tensor | None


class Place(NamedTuple):
    """Where in memory a tensor's numbers lie: how a view of a weight is recognised.

    Attributes:
        storage: identity of the memory.
        offset: of the first number.
        shape: sizes.
        stride: strides.
    """

    storage: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, t: Tensor) -> Place | None:
        """The place of a tensor, also under `torch.func`; None where samples have one of their own, or it has no memory."""
        if is_batched(t):
            return None
        t = bare(t)
        if t.layout != torch.strided:
            return None
        return cls(t.untyped_storage()._cdata, int(t.storage_offset()), tuple(t.shape), t.stride())


Names = Mapping[int | Place, str]
"""The names of weights: by the `id` of a parameter, by the place of a view of one."""

Reader = Callable[..., "LayerCall | Sequence[LayerCall] | None"]
_LAYERS: dict[Any, Reader] = {}
_REPLACEMENTS: dict[Any, Callable[..., Any]] = {}
_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {}
_RESCUES: dict[Any, Callable[..., Any]] = {}
F = TypeVar("F", bound=Callable[..., Any])


def register_layer(*functions: Any) -> Callable[[F], F]:
    """Registers a function, of the very signature of these torch functions, that gives the `LayerCall` of a call to them.

    Where either factor may be the weight it gives a call for each. It returns None, or none, for calls it cannot factor;
    autograd then differentiates their parameters.

    Raises:
        ValueError: a function is registered already.
    """
    return _register(_LAYERS, "a layer", functions)


def register_replacement(*functions: Any) -> Callable[[F], F]:
    """Registers a function that computes the same as these torch functions by other means, which `vmap` runs faster.

    Raises:
        ValueError: a function has its replacement already.
    """
    return _register(_REPLACEMENTS, "a replacement", functions)


def register_decomposition(*functions: Any) -> Callable[[F], F]:
    """Registers a function that computes the same as these torch functions by calls that are intercepted themselves.

    It returns NotImplemented for calls it leaves to torch.

    Raises:
        ValueError: a function has its decomposition already.
    """
    return _register(_DECOMPOSITIONS, "a decomposition", functions)


def register_rescue(*functions: Any) -> Callable[[F], F]:
    """Registers a function that computes the same as these torch functions where they themselves fail under `vmap`.

    It is run in place of a call that has failed, its own calls are intercepted themselves, and it returns NotImplemented for
    calls it knows no other means for.

    Raises:
        ValueError: a function has its rescue already.
    """
    return _register(_RESCUES, "a rescue", functions)


def rescue_of(fn: Any) -> Callable[..., Any] | None:
    """What is registered for a function that fails under `vmap`."""
    return _RESCUES.get(fn)


def _register(registry: dict[Any, Any], kind: str, functions: tuple[Any, ...]) -> Callable[[F], F]:
    def register(by: F) -> F:
        for function in functions:
            if function in registry:
                raise ValueError(f"{function} has {kind} already: {registry[function].__qualname__}")
            registry[function] = by
        return by

    return register


def takes_tangents() -> bool:
    """Whether derivatives are taken forwards (`torch.func.jvp`), which functions with a backward pass of their own lack."""
    level: int = torch.autograd.forward_ad._current_level
    return level >= 0


class VmapReplacements(TorchFunctionMode):
    """Runs functions that `vmap` cannot run, or runs slowly, by their replacements and decompositions."""

    def __torch_function__(
        self, fn: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the call."""
        kwargs = kwargs or {}
        return self.around(fn, args, kwargs, lambda: self._run(fn, args, kwargs))

    def _run(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if fn in ANSWERS:
            return ANSWERS[fn](fn, *args, **kwargs)
        if fn in _DECOMPOSITIONS:
            with self:
                out = _DECOMPOSITIONS[fn](*args, **kwargs)
            if out is not NotImplemented:
                return out
        return self.intercept(fn, args, kwargs, lambda: _REPLACEMENTS.get(fn, fn)(*args, **kwargs))

    def around(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """What the model gets from any call, also one that asks for values; `run` makes it."""
        return run()

    def intercept(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """What the model gets from a call; `run` makes it."""
        return run()


class CallInterceptor(VmapReplacements):
    """Intercepts every use of some weights; `at` says what happens there.

    Args:
        names: tells the weights, and views of them that layers use.
    """

    def __init__(self, names: Names) -> None:
        super().__init__()
        self.names = names
        self.views = any(isinstance(key, Place) for key in names)

    def name_of(self, t: Any) -> str | None:
        """The name of a weight, None for any other value."""
        name = self.names.get(id(t))
        if name is not None or not (self.views and isinstance(t, Tensor)):
            return name
        place = Place.of(t)
        return None if place is None else self.names.get(place)

    def intercept(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """`at`, where the call is a registered layer's and its weight is one of `names`; else `elsewhere`."""
        for call in self._calls(fn, args, kwargs):
            name = self.name_of(call.weight)
            if name is not None:
                return self.at(name, call, run)
        out = run()
        self.elsewhere((args, kwargs), out)
        return out

    def _calls(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[LayerCall]:
        """What a call may be, by the layer registered for it; none where no weight is among its arguments."""
        reader = _LAYERS.get(fn)
        if reader is None or not any(self.name_of(t) is not None for t in _flat((*args, *kwargs.values()))):
            return ()
        calls = reader(*args, **kwargs)
        return () if calls is None else (calls,) if isinstance(calls, LayerCall) else calls

    def at(self, name: str, call: LayerCall, run: Callable[[], Tensor]) -> Tensor:
        """What the model gets from one use of the weight `name`; `run` makes its output."""
        raise NotImplementedError(f"{type(self).__name__} must say what happens at {name}")

    def elsewhere(self, inputs: Any, out: Any) -> None:
        """Meets a call that is no registered layer's, or whose weight is none of `names`."""


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value
