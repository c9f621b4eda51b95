"""Doubles of what trainers wrap around an optimizer, written after Lightning's and accelerate's own code."""

from functools import partial

import torch


def do_nothing_closure():
    """What Lightning passes where its user passes none."""


class Strategy:
    """Lightning's strategy with its plain precision plugin: every step goes through a closure that runs hooks."""

    def __init__(self):
        self.steps = self.hooks = 0

    def optimizer_step(self, optimizer, closure, **kwargs):
        self.steps += 1
        return optimizer.step(closure=partial(self._wrap_closure, "model", optimizer, closure), **kwargs)

    def _wrap_closure(self, model, optimizer, closure):
        result = closure()
        self.hooks += 1  # on_before_optimizer_step, clipping
        return result


class LightningOptimizer:
    """Lightning 2: a proxy. `self.optimizers()` gives it in manual optimisation."""

    def __init__(self, optimizer, strategy):
        self._optimizer, self._strategy = optimizer, strategy

    @property
    def optimizer(self):
        return self._optimizer

    def step(self, closure=None, **kwargs):
        if closure is None:
            closure = do_nothing_closure
        elif not callable(closure):
            raise TypeError("the closure should be callable")
        return self._strategy.optimizer_step(self._optimizer, closure, **kwargs)

    def __getattr__(self, item):
        return getattr(self._optimizer, item)


class CopyingLightningOptimizer(LightningOptimizer):
    """Lightning before 2: it copies the attributes and takes on the class, so that methods run with it for self."""

    def __init__(self, optimizer, strategy):
        self.__dict__ = {k: v for k, v in optimizer.__dict__.items() if k not in ("step", "__del__")}
        name = "Lightning" + type(optimizer).__name__
        self.__class__ = type(name, (type(self), type(optimizer)), {})
        self._optimizer, self._strategy = optimizer, strategy


class AcceleratedOptimizer(torch.optim.Optimizer):
    """accelerate's, with a GradScaler or without; `sync_gradients` is False while it accumulates."""

    def __init__(self, optimizer, scaler=None):
        self.optimizer, self.scaler, self.sync_gradients = optimizer, scaler, True
        optimizer.load_state_dict(optimizer.state_dict())
        if scaler is not None:
            self._original, self.called = optimizer.step, False
            self._patched = self._patch(optimizer.step)

    def _patch(self, method):
        def patched(*args, **kwargs):
            self.called = True
            return method(*args, **kwargs)

        return patched

    def step(self, closure=None):
        if not self.sync_gradients:
            return
        if self.scaler is None:
            self.optimizer.step(closure)
            return
        self.optimizer.step = self._patched
        self.scaler.step(self.optimizer, closure)
        self.scaler.update()
        self.optimizer.step = self._original
