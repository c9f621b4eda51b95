"""What a model makes of a pool inside: its outputs, and what goes into or comes out of its layers.

Everything here runs the model in eval mode without gradients, and the model comes back as it was, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .._utils.checks import check_batch_size
from ..pools import Batch, Stream
from ..tasks import class_logits
from . import memory
from .ambient import own_precision
from .state import module_of, preserve_state
from .uninterrupted import uninterrupted

T = TypeVar("T")
BatchSize = int | Literal["auto"]


class Penultimate(NamedTuple):
    """What the last layer is given, and what the model answers, of every sample of a pool; on the CPU.

    Attributes:
        features: input of the last layer, flattened; [N, d].
        logits: the model's output; [N, C].
    """

    features: Tensor
    logits: Tensor

    @property
    def finite(self) -> Tensor:
        """Which samples' features and logits hold neither NaN nor inf; bool [N]."""
        return self.features.isfinite().all(1) & self.logits.isfinite().all(1)


def each_batch(model: nn.Module, pool: Any, see: Callable[[Any], T], *, batch_size: BatchSize = "auto") -> list[T]:
    """Runs a pool through a model, batch by batch, and gives what `see` makes of each output.

    Args:
        model: any module; wrappers (DataParallel, torch.compile) are taken off.
        pool: as for `saal_fast.score`.
        see: called with each batch's output, where the model's first parameter or buffer is.
        batch_size: samples at once, or "auto" for a size by the memory the activations take.
    """
    check_batch_size(batch_size)
    inner = module_of(model)
    with preserve_state(inner), own_precision(device_of(inner)), torch.inference_mode(False), torch.no_grad():
        stream = Stream(pool, device_of(inner))
        example = stream.peek()
        if example is None:
            return []
        size = _size(inner, example, stream.length) if batch_size == "auto" else batch_size
        return [see(inner(*b.args, **b.kwargs)) for b in stream.batches(size)]


def logits(model: nn.Module, pool: Any, *, batch_size: BatchSize = "auto") -> Tensor:
    """The model's logits of every sample; [N, C] on the CPU, [0, 0] for an empty pool."""
    parts = each_batch(model, pool, lambda output: class_logits(output).cpu(), batch_size=batch_size)
    return torch.cat(parts) if parts else torch.empty(0, 0, dtype=torch.float32, device="cpu")


def penultimate(model: nn.Module, pool: Any, *, layer: str | None = None, batch_size: BatchSize = "auto") -> Penultimate:
    """The input of the model's last layer, and its logits, of every sample.

    Args:
        model: as for `each_batch`.
        pool: as for `each_batch`.
        layer: name of the layer (as in `model.named_modules()`); None for the last `nn.Linear` that the model runs.
        batch_size: as for `each_batch`.

    Raises:
        ValueError: there is no such layer, the model does not run it, or the pool is empty.
    """
    inner = module_of(model)
    name, module = last_layer(inner, pool, layer)

    def flat(h: Tensor) -> Tensor:
        return h.detach().reshape(len(h), -1).to(torch.float64 if h.dtype == torch.float64 else torch.float32, copy=True)

    with preserve_state(inner), tapped({name: module}, "input", flat) as seen:  # hooked in this thread's turn alone

        def see(output: Any) -> Penultimate:
            if name not in seen:
                raise ValueError(f"expected the model to run its layer {name!r} on every batch; it did not")
            z = class_logits(output)
            h = seen.pop(name)
            if h.shape[0] != z.shape[0]:
                raise ValueError(
                    f"expected the input of {name!r} to have a row for each of {z.shape[0]} samples, got {list(h.shape)}; "
                    "name another layer with layer="
                )
            return Penultimate(h.cpu(), z.cpu())

        parts = each_batch(inner, pool, see, batch_size=batch_size)
    return Penultimate(*map(torch.cat, zip(*parts, strict=True)))


def last_layer(model: nn.Module, pool: Any, name: str | None = None) -> tuple[str, nn.Module]:
    """Name and module of the layer of that name, or of the last `nn.Linear` that the model runs on the pool's first sample.

    Raises:
        ValueError: there is none, or the pool is empty.
    """
    inner = module_of(model)
    modules = dict(inner.named_modules())
    if name is not None:
        if name not in modules or not name:
            known = ", ".join([n for n in modules if n][-5:])
            raise ValueError(
                f"expected layer= to name a module of {type(inner).__name__}, got {name!r}; its last are: {known}"
            )
        return name, modules[name]
    linear = {n: m for n, m in modules.items() if isinstance(m, nn.Linear)}
    with preserve_state(inner), tapped(linear, "input") as seen:
        first_output(inner, pool)
    if not seen:
        raise ValueError(
            f"expected a model that runs an nn.Linear, to find its last layer; {type(inner).__name__} runs none. "
            "Name the layer with layer="
        )
    last = list(seen)[-1]
    return last, linear[last]


def is_empty(model: nn.Module, pool: Any) -> bool:
    """Whether a pool for the model holds no sample; a `DataLoader`'s draws leave the global generators as they were."""
    inner = module_of(model)
    with preserve_state(inner), own_precision(device_of(inner)), torch.inference_mode(False), torch.no_grad():
        return Stream(pool, device_of(inner)).peek() is None


def first_output(model: nn.Module, pool: Any, copies: int = 1) -> Any:
    """The model's output on a batch of that many copies of the pool's first sample.

    Raises:
        ValueError: the pool is empty.
    """
    inner = module_of(model)
    with preserve_state(inner), own_precision(device_of(inner)), torch.inference_mode(False), torch.no_grad():
        example = Stream(pool, device_of(inner)).peek()
        if example is None:
            raise ValueError("expected a pool of at least one sample, to see what the model does with it; it is empty")
        batch = example.map(lambda t: t.repeat_interleave(copies, 0), size=copies)
        return inner(*batch.args, **batch.kwargs)


def tapped(
    modules: Mapping[str, nn.Module], side: Literal["input", "output"], take: Callable[[Tensor], Tensor] = Tensor.detach
) -> AbstractContextManager[dict[str, Tensor]]:
    """Inside, the dict it gives holds the first tensor that each module was last given, or gave, in the order they ran.

    What it holds is what `take` makes of the tensor while the module runs; later ones may write to it in place.
    """
    seen: dict[str, Tensor] = {}
    handles: list[Any] = []

    def enter() -> dict[str, Tensor]:
        for name, module in modules.items():
            handles.append(tap(module, side, lambda t, name=name: _put_last(seen, name, take(t))))  # type: ignore[misc]
        return seen

    def leave() -> None:
        for handle in handles:
            handle.remove()

    return uninterrupted(enter, leave)


def tap(module: nn.Module, side: Literal["input", "output"], keep: Callable[[Tensor], None]) -> Any:
    """Hooks a module, so that `keep` gets the first tensor of every input or output; gives the hook's handle."""

    def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        for leaf in tree_leaves((args, kwargs) if side == "input" else output):
            if isinstance(leaf, Tensor):
                keep(leaf)
                return

    return module.register_forward_hook(hook, with_kwargs=True)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer is; the CPU for a model of neither."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def _put_last(seen: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    seen.pop(name, None)
    seen[name] = tensor


def _size(model: nn.Module, example: Batch, length: int | None) -> int:
    """A batch size whose activations fit the device; for a pool of known length, batches of nearly one size."""
    size = memory.batch_size(lambda: model(*example.args, **example.kwargs), device_of(model))
    return memory.evened(size, length)
