"""A model's state, which scoring leaves as it was.

`preserve_state` takes a snapshot of a model and of the random number generators, puts the model in eval mode, and
restores everything. The snapshot costs the memory of the buffers. Parameters are not copied: a forward pass
that changes them in place gives scores that depend on the order of the pool, so `preserve_state` raises an error for it.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from operator import is_
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from .._utils.failures import note_handlers
from .._utils.rng import GlobalGenerators
from .held import held, is_array
from .switch import Switch
from .turns import turns
from .uninterrupted import uninterrupted

T = TypeVar("T")
Undo = Callable[[], None]


def preserve_state(model: nn.Module) -> AbstractContextManager[Kept]:
    """Puts `model` in eval mode, and restores it on leaving, however that happens.

    It restores

    - each submodule's training flag; its attributes, parameters, buffers and hooks (the same objects); the contents
      of attributes that are dicts, lists, deques or sets, and of such containers in them, three levels deep; what the
      memory of buffers, and of tensors and NumPy arrays in attributes and their containers, holds, however it was written;
    - each parameter's storage, `grad`, `requires_grad` and attributes (the same objects);
    - the global generators of torch (CPU, and the CUDA devices of the model), `random` and NumPy, beside other threads
      only as far as `GlobalGenerators` says.

    It does not follow objects of other classes that a module keeps. A ScriptModule has its attributes in C++: only its
    flags, parameters and buffers are restored.

    Inside, gradients are None, so that what accumulates into them is dropped. Flags are set without calling
    `model.eval()`, which some models override with changes to their weights (merging LoRA factors, say).

    Threads take turns: another thread that asks for the model, or for one that shares modules, parameters or buffers with
    it, waits until this one has left. One thread may ask again. No signal cuts the leaving off.

    Args:
        model: Any module; wrappers and modules that appear twice are fine.

    Raises:
        ValueError: A parameter or buffer is lazy, so there is nothing yet to put back.
        RuntimeError: On leaving: a parameter was changed in place. Where there is another exception already, it becomes a
            note of that one. All else has been put back, save what training in another thread would miss: that parameter's
            gradient, and the training flag of modules that are in training mode by now.
    """
    kept = Kept(model)
    return uninterrupted(kept.enter, kept.leave)


class Kept:
    """What `preserve_state` keeps of a model.

    Attributes:
        generators: the global generators, inside; work that may draw from them is shown to `watch`.
    """

    generators: GlobalGenerators | None = None

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._undo: deque[Undo] = deque()
        self._versions: list[tuple[str, torch.Tensor, int]] = []
        self._changed: list[str] | None = None
        self._trained: list[nn.Module] = []

    def enter(self) -> Kept:
        """Waits for the model, reads all that there is to put back, and then puts the model in eval mode."""
        note_handlers()
        modules = list(self.model.modules())
        turns.take(self, modules, lambda: chain(self.model.parameters(), self.model.buffers()))
        parameters = dict(self.model.named_parameters())
        for name, tensor in chain(parameters.items(), self.model.named_buffers()):
            if is_lazy(tensor):
                raise ValueError(f"{name} of the model is lazy; run the model once first, to give it a shape")
        self.generators = GlobalGenerators({p.device for p in parameters.values() if p.is_cuda})
        self._versions = [(name, parameter, _version(parameter)) for name, parameter in parameters.items()]
        # All of the snapshot is read before anything changes: an interrupt up to here leaves nothing to undo.
        self._undo = deque(
            [
                *(_contents(tensor, self._is_untrained) for tensor in _state_tensors(modules)),
                *(_array(array) for array in _state_arrays(modules)),
                *(_parameter(parameter) for parameter in parameters.values()),
                *(_attributes(module) for module in modules),
            ]
        )
        for parameter in parameters.values():
            if parameter.is_leaf:
                parameter.grad = None
        for module in modules:
            if getattr(module, "training", False):
                module.training = False
        return self

    def _is_untrained(self) -> bool:
        return not self._changed

    def watch(self, work: Callable[[], T], times: int = 1) -> T:
        """Does work that may draw random numbers; see `GlobalGenerators.watch`."""
        return work() if self.generators is None else self.generators.watch(work, times)

    def leave(self) -> BaseException | None:
        """Puts everything back; where it was cut off, it is called again and goes on with the step that was cut off."""
        if self._changed is None:
            changed = [name for name, parameter, version in self._versions if _version(parameter) != version]
            self._trained = [module for module in self.model.modules() if changed and getattr(module, "training", False)]
            self._changed = changed
        while self._undo:
            try:
                self._undo[0]()
            except BaseException:
                self._undo.rotate(-1)  # a step that fails by itself lets the others pass
                raise
            self._undo.popleft()
        for module in self._trained:
            module.training = True
        if self.generators is not None:
            self.generators.put_back()
        turns.give_back(self)
        if not self._changed:
            return None
        return RuntimeError(
            f"the model changed its own parameters in place while it was scored ({', '.join(self._changed)}), or it was "
            "trained in another thread meanwhile; expected a forward pass that only reads them (torch.nn.Embedding with "
            "max_norm is one that does not), and training and scoring in turn. The parameters were not put back"
        )


def keep_statistics(model: nn.Module) -> AbstractContextManager[None]:
    """Restores the running statistics of `model`, bit for bit, on leaving, however that happens.

    Inside, layers normalise by their batch as in any training pass. It restores all buffers, the count of batches
    too, of every module with a buffer `running_mean`: BatchNorm of any kind, InstanceNorm that tracks, and most
    variants of users. It does not restore the power iterations of a spectral norm.

    Args:
        model: Any module.
    """
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        if isinstance(getattr(module, "running_mean", None), torch.Tensor)
        for name, buffer in module.named_buffers(recurse=False)
    ]

    def leave() -> None:
        with torch.no_grad():
            for module, name, buffer, copy in kept:
                buffer.copy_(copy)  # whatever its version says: the kernels of batch norm don't count
                setattr(module, name, buffer)

    return uninterrupted(lambda: None, leave)


def disable_compiled() -> AbstractContextManager[None]:
    """Within it, what `torch.compile` has compiled inside a model runs as it was written, so that `vmap` sees it.

    The switch is one for the process: the last thread to leave puts it back to what the first one found.
    """
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and importing it takes seconds
        return nullcontext()
    return _eager.within()


def _run_eagerly() -> Callable[[], None]:
    stance: Any = torch.compiler.set_stance("force_eager")
    return lambda: stance.__exit__(None, None, None)


_eager = Switch(_run_eagerly)


def module_of(model: nn.Module) -> nn.Module:
    """The module inside wrappers.

    Raises:
        TypeError: it is none, or a ScriptModule, which takes no hooks.
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"expected model to be an eager torch.nn.Module, got {type(model).__name__}")
    return unwrap(model)


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel, torch.compile and opacus' wrappers, however nested."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        elif any(kind.__module__.partition(".")[0] == "opacus" for kind in type(model).__mro__):
            inner = next((model._modules[name] for name in ("_module", "module") if name in model._modules), None)
        else:
            inner = model._modules.get("_orig_mod")  # torch.compile's; its class costs a slow import
        if not isinstance(inner, nn.Module):
            return model
        model = inner


# --- what each step puts back: a reading now, and a function for later ------------------------------


def _attributes(module: nn.Module) -> Undo:
    training = getattr(module, "training", None)  # a frozen ScriptModule has none
    if isinstance(module, torch.jit.ScriptModule):
        return lambda: None if training is None else setattr(module, "training", training)
    attributes = vars(module)
    containers = [_container(value) for value in held(module) if isinstance(value, dict | list | deque | set)]
    whole = _container(attributes)

    def undo() -> None:
        whole()
        for container in containers:
            container()

    return undo


def _container(value: Any) -> Undo:
    """Keeps the contents of a dict, list, deque or set, to restore them in the same object and order.

    What is missing comes first and what is too much goes then: others may read the container meanwhile.
    """
    if isinstance(value, dict):
        return _dict(value)
    if isinstance(value, list | deque | set):
        items = list(value)

        def undo() -> None:
            if [id(item) for item in value] == [id(item) for item in items]:
                return
            if isinstance(value, set):
                value.update(items)
                value.intersection_update(items)
            elif isinstance(value, deque):
                value.extend(items)
                while len(value) > len(items):
                    value.popleft()
            else:
                value[:] = items

        return undo
    return lambda: None


def _dict(value: dict[Any, Any]) -> Undo:
    keys, items = list(value), list(value.values())

    def undo() -> None:
        if list(value) == keys and all(map(is_, value.values(), items)):
            return
        missing = object()
        for key, item in zip(keys, items, strict=True):
            if value.get(key, missing) is not item:
                value[key] = item
        kept = set(keys)
        for key in [key for key in value if key not in kept]:
            del value[key]
        if list(value) != keys:
            for key, item in zip(keys, items, strict=True):  # each key goes to the end
                value.pop(key)
                value[key] = item

    return undo


def _state_tensors(modules: list[nn.Module]) -> list[torch.Tensor]:
    """The tensors, once each, that modules keep and that are not parameters."""
    found: dict[int, torch.Tensor] = {}
    for module in modules:
        kept = list(module.buffers(recurse=False))
        kept += [value for value in held(module) if isinstance(value, torch.Tensor)]
        found.update((id(tensor), tensor) for tensor in kept if not isinstance(tensor, nn.Parameter))
    return list(found.values())


def _state_arrays(modules: list[nn.Module]) -> list[np.ndarray[Any, Any]]:
    """The arrays in memory, once each, that modules keep."""
    arrays = [value for module in modules for value in held(module) if is_array(value)]
    return list({id(array): array for array in arrays}.values())


def _array(array: np.ndarray[Any, Any]) -> Undo:
    copy = array.copy()
    return lambda: np.copyto(array, copy)


def _contents(tensor: torch.Tensor, is_untrained: Callable[[], bool]) -> Undo:
    """Keeps what a tensor is.

    Args:
        tensor: a buffer, or an attribute.
        is_untrained: whether its memory counts also where its version does not: NumPy, `.data` and the kernels of batch norm
            write without it, and so does training in another thread, which is to keep what it has made.
    """
    storage, copy = tensor.detach(), tensor.detach().clone()
    version, requires_grad, node = _version(tensor), tensor.requires_grad, tensor.grad_fn

    @torch.no_grad()
    def undo() -> None:
        if tensor.grad_fn is not node:
            tensor.detach_()
        _reattach(tensor, storage)
        if _version(tensor) != version or (is_untrained() and _differ(tensor, copy)):
            tensor.copy_(copy)
        if tensor.requires_grad != requires_grad:
            tensor.requires_grad_(requires_grad)

    return undo


def _differ(tensor: torch.Tensor, copy: torch.Tensor) -> bool:
    """Whether the memory of a tensor holds other numbers than its copy, as far as that can be seen and mended."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_inference():
        return False
    return not torch.equal(tensor, copy)


def _parameter(parameter: torch.Tensor) -> Undo:
    storage, requires_grad, version = parameter.detach(), parameter.requires_grad, _version(parameter)
    grad = parameter.grad if parameter.is_leaf else None
    attributes = _container(vars(parameter))  # of other libraries: opacus' `grad_sample`

    def undo() -> None:
        attributes()
        _reattach(parameter, storage)
        if parameter.requires_grad != requires_grad:
            parameter.requires_grad_(requires_grad)
        if parameter.is_leaf and _version(parameter) == version:
            parameter.grad = grad

    return undo


def _reattach(tensor: torch.Tensor, storage: torch.Tensor) -> None:
    """Restores the memory that an assignment to a tensor's `.data` took from it."""
    if _address(tensor) != _address(storage) or tensor.shape != storage.shape:
        tensor.data = storage


def _address(tensor: torch.Tensor) -> int:
    return tensor.data_ptr() if tensor.layout == torch.strided else 0  # a sparse tensor has several


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # an inference tensor cannot change in place
