"""LL4AL: a module that learns to predict losses from hidden feature maps (Yoo & Kweon, arXiv:1905.03677)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._utils.checks import check_whole
from .._utils.defaults import PLAIN
from .._utils.rng import drawing_from
from ..models.features import BatchSize, each_batch, first_output, tap, tapped
from ..models.state import module_of, unwrap
from ..tasks import logits_of
from .choice import check_options, check_request, largest
from .feature_maps import average_over_space, find_levels
from .protocol import OnNonFinite, Selection, TrainingHook


class LossPrediction(nn.Module):
    """A linear layer and ReLU for each pooled feature map, and a linear layer from all of their outputs to the loss.

    Args:
        maps: width of each pooled map, by the name of its layer.
        width: outputs of each linear layer but the last.
    """

    def __init__(self, maps: Mapping[str, int], width: int = 128) -> None:
        super().__init__()
        self.names = list(maps)
        self.layers = nn.ModuleList(nn.Linear(wide, width, **PLAIN) for wide in maps.values())
        self.last = nn.Linear(width * len(self.layers), 1, **PLAIN)

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Predicts losses [B] from pooled maps [B, width of the map]."""
        parts = [layer(maps[name]).relu() for name, layer in zip(self.names, self.layers, strict=True)]
        predicted: Tensor = self.last(torch.cat(parts, 1)).squeeze(1)
        return predicted


def ranking_loss(predicted: Tensor, losses: Tensor, margin: float = 1.0) -> Tensor | None:
    """Penalises pairs whose predicted losses are in the wrong order (their Eq. 2).

    `max(0, -s (l̂_i - l̂_j) + ξ)` with s = 1 where l_i > l_j, else -1; the mean over pairs (i, i + ⌊B/2⌋). An odd batch leaves
    its last sample out. No gradient flows into the losses.

    Args:
        predicted: l̂, [B].
        losses: l, [B].
        margin: ξ.

    Returns:
        0-d, or None for a batch of less than two samples.
    """
    half = len(losses) // 2
    if half == 0:
        return None
    losses = losses.detach()
    sign = torch.where(losses[:half] > losses[half : 2 * half], 1.0, -1.0).to(predicted)
    return (margin - sign * (predicted[:half] - predicted[half : 2 * half])).clamp(min=0).mean()


@dataclass
class LL4AL:
    """Chooses the samples with the largest predicted loss.

    Args:
        layers: names of the layers whose outputs are the feature maps; None to take the last output of every spatial size
            (a ResNet's stages), or in a model without maps, of every width.
        width: outputs of the module's linear layers.
        margin: ξ of the ranking loss.
        weight: λ, the weight of the ranking loss.
        stop: first epoch in which the module's gradient no longer reaches the model; None for 0.6 of the epochs (theirs:
            120 of 200).
        channels: dimension of the maps' channels; None for 1, and for 2 in maps [B, T, d] of a model without `nn.Conv1d`.
        batch_size: samples per batch in `select`, or "auto".
        on_nonfinite: "raise" for an error where outputs hold NaN or inf, or "keep" to pass these samples over.
    """

    layers: Sequence[str] | None = None
    width: int = 128
    margin: float = 1.0
    weight: float = 1.0
    stop: int | None = None
    channels: int | None = None
    batch_size: BatchSize = "auto"
    on_nonfinite: OnNonFinite = "raise"
    module: LossPrediction | None = field(default=None, init=False, repr=False)
    name: ClassVar[str] = "ll4al"

    def __post_init__(self) -> None:
        check_options(self.batch_size, self.on_nonfinite)
        check_whole("width", self.width, 1)
        if self.stop is not None:
            check_whole("stop", self.stop, 0)
        if isinstance(self.layers, str) or (self.layers is not None and not self.layers):
            raise ValueError(f"expected layers as a list of at least one name, or None; got {self.layers!r}")

    def select(
        self,
        model: nn.Module,
        pool: Any,
        k: int,
        *,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """As `Strategy.select`; it does not use `labelled` and draws nothing.

        Raises:
            RuntimeError: no loss prediction module was trained yet.
            ValueError: the model lacks the layers that the module was trained on.
        """
        check_request(k, pool, generator)
        module = self.module
        if module is None:
            raise RuntimeError("expected LL4AL to be trained with a model first: train it under the hook of training(...)")
        inner = module_of(model)
        layers = _layers(inner, module.names)

        with tapped(layers, "output", lambda t: self._pool(inner, t)) as seen:

            def see(output: Any) -> Tensor:
                predicted = module(seen).double()
                known = logits_of(output).flatten(1).isfinite().all(1)
                seen.clear()
                return torch.where(known, predicted, torch.nan).cpu()

            parts = each_batch(inner, pool, see, batch_size=self.batch_size)
        return largest(
            torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64, device="cpu"), k, self.on_nonfinite
        )

    def training(
        self,
        model: nn.Module,
        *,
        pool: Any | None = None,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> TrainingHook:
        """A hook that trains a new module together with the model.

        Args:
            model: the model that will be trained. The hook records its hidden layers until it is closed.
            pool: unlabelled samples; `pool` or `labelled` is needed for the shapes of the maps.
            labelled: labelled samples.
            generator: source of the module's initial weights.

        Raises:
            ValueError: both are None, or the model has no hidden layer.
        """
        samples = labelled if labelled is not None else pool
        if samples is None:
            raise ValueError("expected labelled= or pool=, to find the model's hidden layers by a first sample; got neither")
        inner = module_of(model)
        found = find_levels(inner, samples, self.channels) if self.layers is None else list(self.layers)
        layers = _layers(inner, found)
        with tapped(layers, "output", lambda t: self._pool(inner, t)) as maps:
            first_output(inner, samples)
        missing = [n for n in found if n not in maps]
        if missing:
            raise ValueError(f"expected the model to run its layers {missing}; it did not")
        with drawing_from(generator):
            module = LossPrediction({n: maps[n].shape[1] for n in found}, self.width)
        first = maps[found[0]]
        self.module = module.to(first.device, first.dtype)
        return _Hook(self, inner, layers)

    def _pool(self, model: nn.Module, t: Tensor) -> Tensor:
        return average_over_space(model, t, self.channels)


class _Hook(TrainingHook):
    def __init__(self, strategy: LL4AL, model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
        assert strategy.module is not None
        self.strategy, self.model, self.module = strategy, model, strategy.module
        self.stopped = False
        self.seen: dict[str, Tensor] = {}  # the maps of the last forward, averaged over space
        self.handles = [tap(m, "output", lambda t, n=n: self._keep(n, t)) for n, m in layers.items()]  # type: ignore[misc]

    def _keep(self, name: str, t: Tensor) -> None:
        self.seen[name] = average_over_space(self.model, t, self.strategy.channels)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters())

    def start_epoch(self, epoch: int, epochs: int) -> None:
        stop = self.strategy.stop
        self.stopped = epoch >= (0.6 * epochs if stop is None else stop)

    def loss(self, x: Any, y: Any, losses: Tensor) -> Tensor | None:
        seen, self.seen = self.seen, {}
        got = {len(t) for t in seen.values()}
        if set(seen) != set(self.module.names) or got != {len(losses)}:
            raise RuntimeError(
                f"expected loss() right after the model's forward on the batch of {len(losses)}; the model's last forward "
                f"ran {sorted(seen) or 'none'} of the layers {self.module.names} on batches of {sorted(got)}"
            )
        maps = {n: (t.detach() if self.stopped else t) for n, t in seen.items()}
        extra = ranking_loss(self.module(maps), losses, self.strategy.margin)
        return None if extra is None else self.strategy.weight * extra

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles, self.seen = [], {}

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "stopped": self.stopped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.stopped = state["stopped"]


def _layers(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    modules = dict(unwrap(model).named_modules())
    missing = [n for n in names if n not in modules]
    if missing:
        raise ValueError(f"expected layers of {type(model).__name__}, got {', '.join(map(repr, missing))} which it has not")
    return {n: modules[n] for n in names}
