"""`SAM`: training towards flat minima, with any optimizer of torch underneath.

Sharpness-aware minimization (Foret et al. 2021, arXiv:2010.01412) takes the gradient not at the weights w but at the worst
point near them, `w + ε`, and steps from w:

    first_step    ε = ρ g / ‖g‖₂                           g: the gradient at w, the norm over all parameters together
    second_step   w back, bit for bit; base_optimizer.step() with the gradient at w + ε

With `adaptive=True`, `ε = ρ w² ⊙ g / ‖ |w| ⊙ g ‖₂`: the step of the widely used published SAM code, which is ASAM (Kwon et
al. 2021, arXiv:2102.11600) without its η. Both are the whole-batch forms of `perturbation.L2` and `perturbation.Adaptive`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from ..models.state import keep_statistics
from ..perturbation import make
from .ascent import factor, gradients, norm_of, push, sizes_of


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

    or with a closure, which is called at w, where no gradients are there yet, and at w + ε:

    >>>     def closure():
    ...         loss = criterion(model(x), y)
    ...         loss.backward()
    ...         return loss
    ...     loss = optimizer.step(closure)

    The base optimizer lives in `base_optimizer` and shares `param_groups` and `state` with this one: schedulers,
    `state_dict` and `zero_grad` work as on any optimizer, and a checkpoint of the base optimizer alone can be loaded.
    `docs/training.md` has AMP, clipping and batch norm.

    Each group may have its own `rho` and `adaptive`; they are read at every `first_step`, so `group["rho"]` can be
    scheduled. The norm is one over all groups. Complex parameters count as pairs of real ones. In a group with
    `maximize=True` the perturbation goes down, as that is the worst there. Where the gradient is zero, so is ε. Where it is
    not finite, ε is zero too: what the second pass gives, at w then, decides about the step, as with any optimizer.

    Room for a copy of the weights is kept from step to step. `first_step` waits for the device once.

    Args:
        params: As for any optimizer: tensors, (name, tensor) pairs, or dicts of groups.
        base_optimizer: The class of the optimizer that takes the step, `torch.optim.SGD` say; its `step` needs no closure.
        rho: Radius ρ of the perturbation, >= 0; 0 is the base optimizer at twice the cost. With `adaptive` it is relative
            to the weights' sizes, and useful values are about ten times larger.
        adaptive: Whether ε scales with the weights.
        freeze_statistics: A model whose batch-norm running statistics only the first pass shall update: after the second
            they are put back (see `keep_statistics`). None: both passes update them.
        **kwargs: For the base optimizer: lr, momentum, weight_decay, ...

    Raises:
        TypeError: base_optimizer is not a class of optimizers, or needs a closure; rho, adaptive or freeze_statistics is of
            a wrong type; and as the base optimizer.
        ValueError: rho is negative, NaN or infinite; and as the base optimizer.
    """

    _step_supports_amp_scaling = True  # GradScaler.step then always calls step(), which skips and unscales itself
    base_optimizer: Optimizer
    _copies: dict[Tensor, Tensor]  # of each moved parameter: its weights at w
    _leaving: ExitStack  # what else is put back with the weights

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
        _check({"rho": rho, "adaptive": adaptive})
        if not (isinstance(base_optimizer, type) and issubclass(base_optimizer, Optimizer)):
            raise TypeError(
                "expected base_optimizer to be a class of optimizers, torch.optim.SGD say, and its settings as keywords of "
                f"SAM; got {base_optimizer!r}"
            )
        closure = inspect.signature(base_optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise TypeError(f"expected a base_optimizer that steps without a closure; {base_optimizer.__name__} needs one")
        if not (freeze_statistics is None or isinstance(freeze_statistics, nn.Module)):
            raise TypeError(f"expected freeze_statistics to be a module or None, got {type(freeze_statistics).__name__}")
        self.base_optimizer = base_optimizer(params, **kwargs)
        self._freeze = freeze_statistics
        self._forget()
        defaults = {**self.base_optimizer.defaults, "rho": rho, "adaptive": adaptive}
        super().__init__(self.base_optimizer.param_groups, defaults)  # adds its settings to the same dicts
        self.param_groups = self.base_optimizer.param_groups
        self.state = self.base_optimizer.state

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        """Moves the weights from w to w + ε, by the gradients that are there. Parameters without a gradient stay.

        Args:
            zero_grad: Whether to drop the gradients afterwards, for the second pass.

        Raises:
            RuntimeError: The weights are moved already; no parameter has a gradient; a gradient is sparse.
            TypeError, ValueError: A group's rho or adaptive was set to something else.
        """
        self._expect_still("another first_step")
        groups = []
        for group in self.param_groups:
            _check(group)
            weights, grads = gradients(group)
            if weights:
                groups.append((group, weights, sizes_of(weights, grads, group["adaptive"])))
        if not groups:
            raise RuntimeError("no parameter has a gradient; expected loss.backward() before first_step")
        norm = norm_of([size for _, _, sizes in groups for size in sizes])

        moved = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        self._copies = {p: _like(self._copies.get(p), p) for p in moved}
        torch._foreach_copy_(tuple(self._copies.values()), moved)
        if self._freeze is not None:
            self._leaving.enter_context(keep_statistics(self._freeze))
        self._moved = True
        for group, weights, sizes in groups:
            scale = factor(float(group["rho"]), norm) * (-1 if group.get("maximize", False) else 1)
            if scale:
                push(weights, sizes, scale, group["adaptive"])
        if zero_grad:
            self.zero_grad()

    def second_step(self, zero_grad: bool = False) -> None:
        """Puts the weights back and takes the base optimizer's step, with the gradients found at w + ε.

        Args:
            zero_grad: Whether to drop the gradients afterwards.

        Raises:
            RuntimeError: There was no `first_step`, or no backward pass since.
        """
        if not self._moved:
            raise RuntimeError("expected first_step before second_step")
        self.step()  # schedulers and hooks see a step
        if zero_grad:
            self.zero_grad()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], Any]) -> Any: ...

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes the whole step with a closure; without one, after `first_step`, what is left of it (as `GradScaler` asks).

        Args:
            closure: Computes the loss, calls its `backward` and returns it; it may call `zero_grad` first. Gradients that
                are there when `step` is called are taken for those at w, and the closure is called once, at w + ε. Where
                there are none, or zeros alone, it is called twice. All gradients are dropped at the end, lest they be taken
                for the next w's.

        Returns:
            What the first call of the closure returned; None without one.

        Raises:
            RuntimeError: There is neither a closure nor a `first_step` before, or both; a closure under a GradScaler; and as
                `first_step`. Whatever is raised, by the closure too, the weights are back at w.
            TypeError: The closure can't be called.
        """
        if closure is None:
            if not self._moved:
                raise RuntimeError("expected a closure, or first_step before step(): SAM takes the gradient twice")
            return self._finish()
        if not callable(closure):
            raise TypeError(f"expected closure to be a function, got {type(closure).__name__}")
        self._expect_still("step(closure)")
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
        """Puts the weights back, bit for bit, and takes no step: for one given up between its parts. Else does nothing."""
        if self._moved:
            torch._foreach_copy_(tuple(self._copies), tuple(self._copies.values()))
            self._moved = False
            self._leaving.close()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters, with rho and adaptive of its own if it has them; as `torch.optim.Optimizer`."""
        if isinstance(param_group, dict):
            settings = {name: self.defaults[name] for name in ("rho", "adaptive")}
            _check({**settings, **param_group})
            if self.param_groups is self.base_optimizer.param_groups:
                self.base_optimizer.add_param_group({**settings, **param_group})
                return
        super().add_param_group(param_group)  # on construction: one that the base optimizer has already

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` of a SAM, or of the base optimizer alone, gave; as `torch.optim.Optimizer`.

        Raises:
            RuntimeError: The weights are moved.
        """
        self._expect_still("load_state_dict")
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        self._expect_still("a copy")
        return {**super().__getstate__(), "base_optimizer": self.base_optimizer, "_freeze": self._freeze}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()
        for group in self.param_groups:  # a checkpoint of the base optimizer has neither
            group.setdefault("rho", self.defaults["rho"])
            group.setdefault("adaptive", self.defaults["adaptive"])
        self.base_optimizer.__setstate__({"state": self.state, "param_groups": self.param_groups})

    def _forget(self) -> None:
        self._copies = {}
        self._moved = False
        self._leaving = ExitStack()

    def _expect_still(self, what: str) -> None:
        if self._moved:
            raise RuntimeError(f"the weights are moved by first_step; expected second_step or restore before {what}")

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


def _check(group: dict[str, Any]) -> None:
    if not isinstance(group["adaptive"], bool):
        raise TypeError(f"expected adaptive to be True or False, got {group['adaptive']!r}")
    make(group["rho"], adaptive=group["adaptive"])


def _has_gradients(optimizer: Optimizer, *, zeros: bool = True) -> bool:
    """Whether any parameter has a gradient; without `zeros`, one that zero_grad(set_to_none=False) can't have left."""
    grads = (p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
    return any(zeros or g.is_sparse or bool(g.any()) for g in grads)


def _like(copy: Tensor | None, p: Tensor) -> Tensor:
    """Room for a copy of p: the one of the step before, where it fits."""
    fits = copy is not None and (copy.shape, copy.dtype, copy.device) == (p.shape, p.dtype, p.device)
    return copy if copy is not None and fits else torch.empty_like(p)
