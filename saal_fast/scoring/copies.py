"""Copies of a model that may be run, moved and spoilt, for the self-check; and what a model keeps between passes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .._utils.failures import is_from_handler
from ..models.held import held

_OWN = ("_parameters", "_buffers", "_modules")
_UNCOPIED = (TypeError, RuntimeError, ValueError, AttributeError, pickle.PickleError, copy.Error)


class SharedError(Exception):
    """A copy of a model is not apart from it."""


class Cache(NamedTuple):
    """A place where modules keep tensors that a pass makes anew once they are gone.

    Attributes:
        modules: their names.
        attribute: a dict, or a tensor, of each of them.
        empty: empties it.
    """

    modules: tuple[str, ...]
    attribute: str
    empty: Callable[[nn.Module, str], None]

    def clear(self, model: nn.Module) -> None:
        """Empties it in `model`."""
        for name in self.modules:
            self.empty(model.get_submodule(name), self.attribute)


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy, which shares what can't be copied of modules' attributes (locks, files, scripted functions).

    Tensors that the model keeps from a graph come without it, since torch refuses to copy these.

    Raises:
        SharedError: the copy has a parameter or buffer of the model itself, which must not be moved with it.
    """
    kept = [t for module in model.modules() for t in tree_leaves([_kept(module), *module.buffers(False)])]
    memo: dict[int, Any] = {}
    own = {p.untyped_storage().data_ptr(): copy.deepcopy(p, memo) for p in _plain_parameters(model)}
    for t in kept:
        if isinstance(t, Tensor) and t.grad_fn is not None:
            theirs = own.get(t.untyped_storage().data_ptr()) if t._is_view() and t.layout == torch.strided else None
            memo[id(t)] = t.detach().clone() if theirs is None else _view(theirs, t)
    copied: nn.Module
    with torch.no_grad():  # a ScriptModule's parameters would be copied with a graph
        try:
            copied = copy.deepcopy(model, dict(memo))
        except _UNCOPIED as error:
            if is_from_handler(error):
                raise
            shared = {id(value): value for module in model.modules() for value in _uncopied(module, memo)}
            copied = copy.deepcopy(model, memo | shared)
    for ours, its in zip(model.parameters(), copied.parameters(), strict=True):
        its.requires_grad_(ours.requires_grad)
        vars(its).update({name: value for name, value in vars(ours).items() if name not in vars(its)})
    _renumber(copied, {id(ours): id(its) for ours, its in zip(model.parameters(), copied.parameters(), strict=True)})
    _check_apart(model, copied)
    return copied


def _renumber(copied: nn.Module, ids: dict[int, int]) -> None:
    """Gives dicts whose keys are the `id` of parameters those of the copies."""
    for value in (value for module in copied.modules() for value in held(module, objects=True)):
        if isinstance(value, dict):
            for key in value.keys() & ids.keys():
                value[ids[key]] = value.pop(key)


def _check_apart(model: nn.Module, copied: nn.Module) -> None:
    ours = {t.untyped_storage().data_ptr() for _, t in _state(model)}
    shared = next((name for name, t in _state(copied) if t.untyped_storage().data_ptr() in ours), None)
    if shared is not None:
        raise SharedError(f"a copy of {type(model).__name__} shares {shared} with it (a __deepcopy__ that gives itself?)")


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers that have memory in one piece."""
    for name, t in (*model.named_parameters(), *model.named_buffers()):
        if t.layout == torch.strided and t.numel() and not t.is_meta:
            yield name, t


def _plain_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Those that copies of views can be views of; one of each that share memory."""
    scripted = {id(p) for m in model.modules() if isinstance(m, torch.jit.ScriptModule) for p in m.parameters()}
    found = [p for p in model.parameters() if id(p) not in scripted and p.layout == torch.strided and p.is_leaf]
    return [p for p in found if p.numel() and not p.is_meta and type(p) is nn.Parameter]


@torch.enable_grad()
def _view(of: Tensor, like: Tensor) -> Tensor:
    return of.as_strided(like.shape, like.stride(), like.storage_offset())


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model itself, with its parameters, buffers and plain tensors of floating point in another type."""
    for module in model.modules():
        for name, value in _kept(module).items():
            vars(module)[name] = tree_map(lambda t: as_type(t, dtype) if isinstance(t, Tensor) else t, value)
    return model.to(dtype)


def as_type(t: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in a floating-point type, or as it is where it is of another kind."""
    return t.to(dtype) if t.is_floating_point() else t.to(dtype.to_complex()) if t.is_complex() else t


def find_caches(model: nn.Module, run: Callable[[nn.Module], Tensor]) -> list[Cache]:
    """What a pass fills again after it was emptied, found by trying; the model itself is not run.

    Buffers may be state that a pass begins anew where there is none: these are caches only where a pass gives the same then.

    Args:
        model: brought as it is to be scored.
        run: a pass; what it gives is the same for the same model.
    """
    attributes, buffers = _places(model, _kept), _places(model, _own_buffers)
    usual = run(copy_of(model)).detach() if buffers else None

    def run_alike(trial: nn.Module) -> Tensor:
        found = run(trial)
        if usual is not None and not torch.allclose(found, usual):
            raise ValueError("another pass gives something else")
        return found

    tried = [(attributes, run), (buffers, run_alike)]
    return [
        cache
        for places, once in tried
        for (_, attribute), names in places.items()
        for cache in _tried(model, once, tuple(names), attribute)
    ]


def _places(model: nn.Module, kept: Callable[[nn.Module], Mapping[str, Any]]) -> dict[tuple[type, str], list[str]]:
    """The names of the modules that keep tensors, by their class and the attribute."""
    places: dict[tuple[type, str], list[str]] = {}
    for name, module in model.named_modules():
        for attribute, value in kept(module).items():
            if any(isinstance(t, Tensor) for t in tree_leaves(value)):
                places.setdefault((type(module), attribute), []).append(name)
    return places


def remade_by_modes(model: nn.Module) -> bool:
    """Whether modules act on `train()` and `eval()`, and change no weight by that (as those that merge LoRA factors do)."""
    if all(type(module).train is nn.Module.train for module in model.modules()):
        return False
    trial = copy_of(model)
    for training in (True, False):
        trial.train(training)
        pairs = zip(model.parameters(), trial.parameters(), strict=True)
        if any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs):
            return False
    return True


def _uncopied(module: nn.Module, memo: dict[int, Any]) -> Iterator[Any]:
    """The plain attributes of a module that can't be copied."""
    for name, value in vars(module).items():
        if name in _OWN or isinstance(value, Tensor):
            continue
        try:
            copy.deepcopy(value, dict(memo))
        except _UNCOPIED as error:
            if is_from_handler(error):
                raise
            yield value


def _tried(model: nn.Module, run: Callable[[nn.Module], Tensor], names: tuple[str, ...], attribute: str) -> Iterator[Cache]:
    for empty in (_clear, delattr):
        cache = Cache(names, attribute, empty)
        trial = copy_of(model)
        try:
            cache.clear(trial)
            run(trial)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if is_from_handler(error):
                raise
            continue  # what it keeps is no cache
        if all(_filled(trial.get_submodule(name), attribute) for name in names):
            yield cache
            return


def _clear(module: nn.Module, attribute: str) -> None:
    place = _place(module, attribute)
    if isinstance(place[attribute], (dict, list)):
        place[attribute].clear()
    else:
        place[attribute] = None


def _place(module: nn.Module, attribute: str) -> dict[str, Any]:
    """The dict of a module that has an attribute; a property that is cached must not be asked."""
    buffers: dict[str, Any] = module._buffers
    return buffers if attribute in buffers else vars(module)


def _filled(module: nn.Module, attribute: str) -> bool:
    return any(isinstance(t, Tensor) for t in tree_leaves(_place(module, attribute).get(attribute)))


def _own_buffers(module: nn.Module) -> Mapping[str, Tensor | None]:
    """The buffers of a module of a user's: torch's own keep nothing there that a pass in eval mode makes anew."""
    theirs = type(module).__module__.startswith("torch.")
    return {} if theirs else dict(module._buffers)


def _kept(module: nn.Module) -> dict[str, Any]:
    """The plain attributes of a module that hold tensors, or dicts, lists and tuples of them; parameters are left alone."""
    return {
        name: value
        for name, value in vars(module).items()
        if name not in _OWN
        and isinstance(value, (Tensor, dict, list, tuple))
        and not any(isinstance(t, nn.Parameter) for t in tree_leaves(value))
    }
