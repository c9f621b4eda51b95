"""A model's state, which scoring leaves as it was.

`preserve_state` takes a snapshot of a model and of the random number generators, puts the model in eval mode, and
restores everything. The snapshot costs the memory of the buffers. Parameters are not copied: a forward pass
that changes them in place gives scores that depend on the order of the pool, so `preserve_state` raises an error for it.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

Undo = Callable[[], None]


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[None]:
    """Puts `model` in eval mode, and restores it on leaving, however that happens.

    It restores

    - each submodule's training flag; its attributes, parameters, buffers and hooks (the same objects); the contents
      of buffers and of plain tensor attributes; the contents, one level deep, of attributes that are dicts, lists,
      deques or sets;
    - each parameter's storage, `grad` and `requires_grad`;
    - the global generators of torch (CPU, and the CUDA devices of the model), `random` and NumPy.

    It does not follow objects of other classes that a module keeps, nor containers inside containers. A ScriptModule
    has its attributes in C++: only its flags, parameters and buffers are restored.

    Inside, gradients are None, so that what accumulates into them is dropped. Flags are set without calling
    `model.eval()`, which some models override with changes to their weights (merging LoRA factors, say).

    Args:
        model: Any module; wrappers and modules that appear twice are fine.

    Raises:
        ValueError: A parameter or buffer is lazy, so there is nothing yet to put back.
        RuntimeError: On leaving: a parameter was changed in place. All else has been put back. It is not
            raised over another exception.
    """
    modules = list(model.modules())
    parameters = dict(model.named_parameters())
    for name, tensor in chain(parameters.items(), model.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(f"{name} of the model is lazy; run the model once first, to give it a shape")
    versions = {name: _version(parameter) for name, parameter in parameters.items()}

    # All of the snapshot is read before anything changes: an interrupt up to here leaves nothing to undo.
    undo = [
        *_generators(parameters.values()),
        *(_contents(tensor) for tensor in _state_tensors(modules)),
        *(_parameter(parameter) for parameter in parameters.values()),
        *(_attributes(module) for module in modules),
    ]
    with ExitStack() as leaving:
        for step in undo:  # each runs, even where another one fails
            leaving.callback(step)
        for parameter in parameters.values():
            if parameter.is_leaf:
                parameter.grad = None
        for module in modules:
            if getattr(module, "training", False):
                module.training = False
        yield
        changed = [name for name, parameter in parameters.items() if _version(parameter) != versions[name]]
    if changed:
        raise RuntimeError(
            f"the model changed its own parameters in place while it was scored ({', '.join(changed)}); "
            "expected a forward pass that only reads them (torch.nn.Embedding with max_norm is one that does "
            "not). The parameters were not put back"
        )


@contextmanager
def keep_statistics(model: nn.Module) -> Iterator[None]:
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
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, copy in kept:
                buffer.copy_(copy)  # whatever its version says: the kernels of batch norm don't count
                setattr(module, name, buffer)


@contextmanager
def disable_compiled() -> Iterator[None]:
    """Within it, what `torch.compile` has compiled inside a model runs as it was written, so that `vmap` sees it."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and importing it takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and torch.compile, however nested."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        else:
            inner = model._modules.get("_orig_mod")  # torch.compile's; its class costs a slow import
        if not isinstance(inner, nn.Module):
            return model
        model = inner


# --- what each step puts back: a reading now, and a function for later ------------------------------


def _generators(tensors: Any) -> Iterator[Undo]:
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield lambda: random.setstate(python)
    yield lambda: np.random.set_state(numpy)
    yield lambda: torch.set_rng_state(cpu)
    for device in {tensor.device for tensor in tensors if tensor.is_cuda}:
        yield _cuda_generator(device)


def _cuda_generator(device: torch.device) -> Undo:
    state = torch.cuda.get_rng_state(device)
    return lambda: torch.cuda.set_rng_state(state, device)


def _attributes(module: nn.Module) -> Undo:
    training = getattr(module, "training", None)  # a frozen ScriptModule has none
    if isinstance(module, torch.jit.ScriptModule):
        return lambda: None if training is None else setattr(module, "training", training)
    attributes = vars(module)
    containers = [_container(value) for value in attributes.values()]
    whole = _container(attributes)

    def undo() -> None:
        whole()
        for container in containers:
            container()

    return undo


def _container(value: Any) -> Undo:
    """Keeps the contents of a dict, list, deque or set, to restore them in the same object and order."""
    if isinstance(value, dict):
        pairs = list(value.items())

        def undo() -> None:
            now = list(value.items())
            if len(now) == len(pairs) and all(a is c and b is d for (a, b), (c, d) in zip(now, pairs, strict=True)):
                return
            value.clear()
            value.update(pairs)

        return undo
    if isinstance(value, list | deque | set):
        items = list(value)

        def undo() -> None:
            if [id(item) for item in value] != [id(item) for item in items]:
                value.clear()
                value.update(items) if isinstance(value, set) else value.extend(items)

        return undo
    return lambda: None


def _state_tensors(modules: list[nn.Module]) -> list[torch.Tensor]:
    """The tensors, once each, that modules keep and that are not parameters."""
    found: dict[int, torch.Tensor] = {}
    for module in modules:
        kept = list(module.buffers(recurse=False))
        if not isinstance(module, torch.jit.ScriptModule):
            kept += [value for value in vars(module).values() if isinstance(value, torch.Tensor)]
        found.update((id(tensor), tensor) for tensor in kept if not isinstance(tensor, nn.Parameter))
    return list(found.values())


def _contents(tensor: torch.Tensor) -> Undo:
    storage, copy = tensor.detach(), tensor.detach().clone()
    version, requires_grad, node = _version(tensor), tensor.requires_grad, tensor.grad_fn

    @torch.no_grad()
    def undo() -> None:
        if tensor.grad_fn is not node:
            tensor.detach_()
        _reattach(tensor, storage)
        if _version(tensor) != version:
            tensor.copy_(copy)
        if tensor.requires_grad != requires_grad:
            tensor.requires_grad_(requires_grad)

    return undo


def _parameter(parameter: torch.Tensor) -> Undo:
    storage, requires_grad = parameter.detach(), parameter.requires_grad
    grad = parameter.grad if parameter.is_leaf else None

    def undo() -> None:
        _reattach(parameter, storage)
        if parameter.requires_grad != requires_grad:
            parameter.requires_grad_(requires_grad)
        if parameter.is_leaf:
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
