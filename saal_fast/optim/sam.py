"""`SAM`: training towards flat minima, with any optimizer of torch underneath.

Sharpness-aware minimization (Foret et al. 2021, arXiv:2010.01412) takes the gradient not at the weights w but at the worst
point near them, `w + ε`, and steps from w:

    first_step    ε = ρ g / ‖g‖₂                           g: gradient at w; the norm is over all parameters together
    second_step   restores w bit for bit; base_optimizer.step() with the gradient at w + ε

With `adaptive=True`, `ε = ρ w² ⊙ g / ‖ |w| ⊙ g ‖₂`: the step of the widely used published SAM code, which is ASAM (Kwon et
al. 2021, arXiv:2102.11600) without its η. Both are the whole-batch forms of `perturbation.L2` and `perturbation.Adaptive`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from .._utils.checks import check_flag
from ..models.state import keep_statistics
from ..perturbation import make
from .ascent import global_norm, gradients, perturb_, scaled_gradients, step_scale


class SAM(Optimizer):
    """Sharpness-aware minimization around a base optimizer.

    Two passes a step, by hand:

    >>> optimizer = saal_fast.SAM(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9, freeze_statistics=model)
    >>> scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    >>> for x, y in loader:
    ...     loss = criterion(model(x), y)
    ...     loss.backward()
    ...     optimizer.first_step(zero_grad=True)
    ...     criterion(model(x), y).backward()  # at the perturbed weights
    ...     optimizer.second_step(zero_grad=True)

    or with a closure, which is called at w (unless gradients exist) and at w + ε:

    >>>     def closure():
    ...         loss = criterion(model(x), y)
    ...         loss.backward()
    ...         return loss
    ...     loss = optimizer.step(closure)

    The base optimizer lives in `base_optimizer` and shares `param_groups` and `state` with this one: schedulers,
    `state_dict` and `zero_grad` work as on any optimizer, and a checkpoint of the base optimizer alone can be loaded.
    `docs/training.md` describes AMP, clipping and batch norm.

    Each group may have its own `rho` and `adaptive`; they are read at every `first_step`, so `group["rho"]` can be
    scheduled. Where the base optimizer has a setting of such a name itself (Adadelta's `rho` is its decay), the name in a
    group is the base optimizer's, and SAM's own are `sam_rho` and `sam_adaptive`. One norm is taken over all groups. Complex
    parameters count as pairs of real ones. In a group with `maximize=True` ε lowers the loss, which is the worst direction
    there. If the gradient is zero or not finite, ε is zero and the second pass runs at w.

    The memory for a copy of the weights is kept from step to step. `first_step` synchronises the device once.

    Args:
        params: As for any optimizer: tensors, (name, tensor) pairs, or dicts of groups.
        base_optimizer: Class of the optimizer that takes the step, such as `torch.optim.SGD`; its `step` needs no closure.
        rho: Radius ρ of the perturbation, >= 0; 0 gives the base optimizer at twice the cost. With `adaptive` it is relative
            to the weights' sizes, and useful values are about ten times larger. `rho` always means SAM's radius; set a base
            optimizer's own `rho` in the parameter groups.
        adaptive: Whether ε scales with the weights.
        freeze_statistics: A model whose batch-norm running statistics follow the first pass only; they are restored after
            the second (see `keep_statistics`). None lets both passes update them.
        **kwargs: Arguments of the base optimizer: lr, momentum, weight_decay, ...

    Raises:
        TypeError: base_optimizer is not a class of optimizers, or needs a closure; rho, adaptive or freeze_statistics is of
            another type; or as the base optimizer.
        ValueError: rho is negative, NaN or infinite; or as the base optimizer.
    """

    _step_supports_amp_scaling = True  # makes GradScaler.step always call step(), which skips and unscales itself
    base_optimizer: Optimizer
    _passes: _Passes

    def __init__(
        self,
        params: ParamsT,
        base_optimizer: type[Optimizer],
        rho: float = 0.05,
        adaptive: bool = False,
        *,
        freeze_statistics: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        _check_settings(rho, adaptive)
        if not (isinstance(base_optimizer, type) and issubclass(base_optimizer, Optimizer)):
            raise TypeError(
                "expected base_optimizer to be a class of optimizers, such as torch.optim.SGD, and its settings as keywords "
                f"of SAM; got {base_optimizer!r}"
            )
        closure = inspect.signature(base_optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise TypeError(f"expected a base_optimizer that steps without a closure; {base_optimizer.__name__} needs one")
        if not (freeze_statistics is None or isinstance(freeze_statistics, nn.Module)):
            raise TypeError(f"expected freeze_statistics to be a module or None, got {type(freeze_statistics).__name__}")
        self.base_optimizer = base_optimizer(params, **kwargs)
        self._freeze = freeze_statistics
        self._passes = _Passes()
        settings = {self._key("rho"): rho, self._key("adaptive"): adaptive}
        defaults = {**self.base_optimizer.defaults, **settings}
        super().__init__(self.base_optimizer.param_groups, defaults)  # adds its settings to the same dicts
        self.param_groups = self.base_optimizer.param_groups
        self.state = self.base_optimizer.state

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        """Moves the weights from w to w + ε, computed from the gradients at w. Parameters without a gradient stay.

        Args:
            zero_grad: Whether to clear the gradients afterwards, for the second pass.

        Raises:
            RuntimeError: The weights are at w + ε already; no parameter has a gradient; a gradient is sparse.
            TypeError, ValueError: A group's rho or adaptive is invalid.
        """
        self._expect_unperturbed("another first_step")
        groups = []
        for group in self.param_groups:
            rho, adaptive = self._settings(group)
            weights, grads = gradients(group)
            if weights:
                radius = -rho if group.get("maximize", False) else rho
                groups.append((radius, adaptive, weights, scaled_gradients(weights, grads, adaptive)))
        if not groups:
            raise RuntimeError("no parameter has a gradient; expected loss.backward() before first_step")
        norm = global_norm([g for *_, scaled in groups for g in scaled])

        perturbed = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        passes = self._passes
        passes.copies = {p: _reuse(passes.copies.get(p), p) for p in perturbed}
        torch._foreach_copy_(tuple(passes.copies.values()), perturbed)
        if self._freeze is not None:
            passes.on_restore.enter_context(keep_statistics(self._freeze))
        passes.perturbed = True
        for radius, adaptive, weights, scaled in groups:
            scale = math.copysign(step_scale(abs(radius), norm), radius)
            if scale:
                perturb_(weights, scaled, scale, adaptive)
        if zero_grad:
            self.zero_grad()

    def second_step(self, zero_grad: bool = False) -> None:
        """Restores the weights and takes the base optimizer's step with the gradients at w + ε.

        After any error the weights are back at w.

        Args:
            zero_grad: Whether to clear the gradients afterwards.

        Raises:
            RuntimeError: There was no `first_step`, or no backward pass since.
        """
        if not self._passes.perturbed:
            raise RuntimeError("expected first_step before second_step")
        self._passes.finishing = True
        try:
            self.step()  # so that schedulers, hooks and what wraps this optimizer count a step
        finally:
            self._passes.finishing = False
            self.restore()
        if zero_grad:
            self.zero_grad()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], Any]) -> Any: ...

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes the whole step with a closure; without one, as `GradScaler` calls it, finishes what `first_step` began.

        Lightning hands a closure to every step; within `second_step`, and where its own does nothing, it is called at
        w + ε for its hooks, and the step is finished.

        Args:
            closure: Computes the loss, calls its `backward` and returns it; it may call `zero_grad` first. If gradients
                exist already, they count as those at w, and the closure is called once, at w + ε. If there are none, or only
                zeros, it is called twice. All gradients are cleared at the end, so that the next step does not take them
                for its own.

        Returns:
            What the first call of the closure returned; None without a closure.

        Raises:
            RuntimeError: Neither a closure nor a `first_step` before, or both; a closure with a GradScaler; or as
                `first_step`. After any error, also one of the closure, the weights are back at w.
            TypeError: The closure can't be called.
        """
        if closure is None:
            if not self._passes.perturbed:
                raise RuntimeError("expected a closure, or first_step before step(): SAM takes the gradient twice")
            return self._finish()
        if not callable(closure):
            raise TypeError(f"expected closure to be a function, got {type(closure).__name__}")
        if self._passes.perturbed and (self._passes.finishing or _does_nothing(closure)):
            try:
                with torch.enable_grad():
                    result = closure()
                self._finish()
            finally:
                self.restore()
            return result
        self._expect_unperturbed("step(closure)")
        if hasattr(self, "found_inf"):
            raise RuntimeError("expected no closure with a GradScaler: call first_step, then scaler.step(optimizer)")
        try:
            with torch.enable_grad():
                losses = [] if _has_gradients(self, zeros=False) else [closure()]
                self.first_step(zero_grad=True)
                losses.append(closure())
            self._finish()
        finally:
            self.restore()
            self.zero_grad()
        return losses[0]

    @torch.no_grad()
    def restore(self) -> None:
        """Restores the weights bit for bit without a step, if `first_step` has perturbed them."""
        passes = self._passes
        if passes.perturbed:
            torch._foreach_copy_(tuple(passes.copies), tuple(passes.copies.values()))
            passes.perturbed = False
            passes.on_restore.close()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters, which may have its own rho and adaptive; as `torch.optim.Optimizer`."""
        if isinstance(param_group, dict):
            settings = {key: self.defaults[key] for key in map(self._key, _SETTINGS)}
            self._settings({**settings, **param_group})
            if self.param_groups is self.base_optimizer.param_groups:
                self.base_optimizer.add_param_group({**settings, **param_group})
                return
        super().add_param_group(param_group)  # on construction, for groups that the base optimizer has already

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state dict of a SAM, or of the base optimizer alone; as `torch.optim.Optimizer`.

        Raises:
            RuntimeError: The weights are at w + ε.
        """
        self._expect_unperturbed("load_state_dict")
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        self._expect_unperturbed("a copy")
        return {**super().__getstate__(), "base_optimizer": self.base_optimizer, "_freeze": self._freeze}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._passes = _Passes()
        for group in self.param_groups:  # a checkpoint of the base optimizer has neither
            for key in map(self._key, _SETTINGS):
                group.setdefault(key, self.defaults[key])
        self.base_optimizer.__setstate__({"state": self.state, "param_groups": self.param_groups})

    def _key(self, setting: str) -> str:
        """The name of one of SAM's settings in a group: its own, unless the base optimizer has one of that name."""
        return f"sam_{setting}" if setting in self.base_optimizer.defaults else setting

    def _settings(self, group: dict[str, Any]) -> tuple[float, bool]:
        """A group's ρ, and whether it is adaptive.

        Raises:
            TypeError, ValueError: One of them is invalid.
        """
        rho, adaptive = (group[self._key(setting)] for setting in _SETTINGS)
        return _check_settings(rho, adaptive), adaptive

    def _expect_unperturbed(self, what: str) -> None:
        if self._passes.perturbed:
            raise RuntimeError(f"the weights are perturbed by first_step; expected second_step or restore before {what}")

    def _finish(self) -> None:
        self.restore()
        if float(getattr(self, "found_inf", 0.0)):  # set by a GradScaler around its step
            return
        if not _has_gradients(self):
            raise RuntimeError("no parameter has a gradient; expected loss.backward() after first_step")
        scale = getattr(self, "grad_scale", None)
        if scale is not None:
            for group in self.param_groups:
                if grads := gradients(group)[1]:
                    torch._foreach_mul_(grads, 1.0 / float(scale))
        self.base_optimizer.step()


_SETTINGS = ("rho", "adaptive")


@dataclass
class _Passes:
    """Where a step is between its two passes: one object, which Lightning's copy of an optimizer's attributes shares.

    Attributes:
        copies: the weights at w of each perturbed parameter.
        perturbed: whether the weights are at w + ε.
        finishing: whether `second_step` is under way.
        on_restore: what else is restored with the weights.
    """

    copies: dict[Tensor, Tensor] = field(default_factory=dict)
    perturbed: bool = False
    finishing: bool = False
    on_restore: ExitStack = field(default_factory=ExitStack)


def _check_settings(rho: Any, adaptive: Any) -> float:
    """ρ as a float, if both settings are as they should be."""
    check_flag("adaptive", adaptive)
    return make(rho, adaptive=adaptive).rho


def _does_nothing(closure: Callable[[], Any]) -> bool:
    """Whether a closure is the one that Lightning hands on where its user gave none, alone or wrapped for its hooks."""
    while isinstance(closure, partial) and closure.args:
        closure = closure.args[-1]
    return getattr(closure, "__name__", "") == "do_nothing_closure"


def _has_gradients(optimizer: Optimizer, *, zeros: bool = True) -> bool:
    """Whether any parameter has a gradient; `zeros=False` ignores zeros, which `zero_grad(set_to_none=False)` leaves."""
    grads = (p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
    return any(zeros or g.is_sparse or bool(g.any()) for g in grads)


def _reuse(copy: Tensor | None, p: Tensor) -> Tensor:
    """Memory for a copy of p: that of the step before if it fits."""
    fits = copy is not None and (copy.shape, copy.dtype, copy.device) == (p.shape, p.dtype, p.device)
    return copy if copy is not None and fits else torch.empty_like(p)
