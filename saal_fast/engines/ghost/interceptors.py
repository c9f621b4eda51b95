"""What the two forward passes of the ghost engine do at each factored layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..layers import CallInterceptor, LayerCall, Names, output_of
from ..problem import EngineError
from .factors import Factored
from .plan import PlannedCall
from .prefix import Prefix, Replay


class PlanError(EngineError):
    """The model did not use its weights as planned."""


class ActivationRecorder(CallInterceptor):
    """Keeps each factored layer's input, and the tensor in autograd's graph that has the gradient at its output.

    That tensor, the tap, is the output itself, or a zero added to it, where the model writes over the output or no gradient
    would reach it.

    Args:
        names: tells the factored weights.
        calls: the planned calls.
        zero: a 0-d zero that requires a gradient.
        prefix: records what the second pass need not compute again; None for nothing.
    """

    def __init__(self, names: Names, calls: Sequence[PlannedCall], zero: Tensor, prefix: Prefix | None = None) -> None:
        super().__init__(names)
        self.calls, self.zero, self.prefix = calls, zero, prefix
        self.inputs: list[Tensor] = []
        self.taps: list[Tensor] = []
        self.versions: list[tuple[int, int]] = []

    def around(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Runs the call."""
        return run() if self.prefix is None else self.prefix.call(fn, args, kwargs, run)

    def at(self, name: str, call: LayerCall, run: Callable[[], Tensor]) -> Tensor:
        i, out = len(self.inputs), output_of(call, run)
        if i == len(self.calls) or (self.calls[i].key, self.calls[i].shape) != (name, out.shape):
            raise PlanError(f"{name} was not used as in the pass of the plan")
        tap = out
        if self.calls[i].overwritten or not out.requires_grad:
            tap = self.zero.to(out.dtype).expand(out.shape)
            out = out + tap
        else:  # backward must run a hook that the model puts on its output before it reaches the tap
            out = out.view_as(out)
        self.inputs.append(call.input)
        self.taps.append(tap)
        self.versions.append((call.input._version, tap._version))
        return out

    def check_calls(self) -> None:
        """Raises PlanError where the model did not use its weights as planned."""
        if len(self.inputs) != len(self.calls):
            raise PlanError(f"{self.calls[len(self.inputs)].weight} was not used as in the pass of the plan")
        for call, tap, (_, version) in zip(self.calls, self.taps, self.versions, strict=True):
            if tap._version != version:
                raise PlanError(f"the output of {call.weight} was changed in place, as it was not in the pass of the plan")

    def check_inputs(self, grads: Sequence[Tensor | None]) -> None:
        """Raises EngineError where the model wrote over the input of a layer whose gradient needs it, as autograd would."""
        for call, a, (version, _), g in zip(self.calls, self.inputs, self.versions, grads, strict=True):
            if g is not None and a._version != version:
                raise EngineError(f"the input of {call.weight} was changed in place, but its gradient needs it as it was")


class PerturbedForward(CallInterceptor):
    """Gives each factored layer the output it has after the sample's own step.

    Args:
        names: tells the factored weights.
        factored: the weights' gradients by their names.
        scale: of the step.
        replay: gives what the first pass has computed already; None for nothing.
    """

    def __init__(self, names: Names, factored: Mapping[str, Factored], scale: Tensor, replay: Replay | None = None) -> None:
        super().__init__(names)
        self.factored, self.scale, self.replay = factored, scale, replay

    def around(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Runs the call, unless it is recorded."""
        return run() if self.replay is None else self.replay.call(fn, args, kwargs, run)

    def at(self, name: str, call: LayerCall, run: Callable[[], Tensor]) -> Tensor:
        return self.factored[name].output(call, run, self.scale)
