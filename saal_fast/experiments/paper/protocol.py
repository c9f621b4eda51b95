"""The protocols of the experiments: the paper's own, and a smaller one for a CPU."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from ...learning import Accuracy, Training
from ...optim import SAM
from ...strategies import Strategy, make
from ..datasets import balanced
from ..networks import resnet18
from .splits import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn
    from torch.optim import Optimizer

    from .splits import Split

PresetName = Literal["paper", "cpu"]
OptimizerName = Literal["adam", "sam"]
RHO = 0.05
"""Radius of SAAL's perturbation, and of SAM's."""

STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "entropy": ("entropy", {}),
    "variation-ratio": ("variation-ratio", {}),
    "margin": ("margin", {}),
    "least-confidence": ("least-confidence", {}),
    "coreset": ("coreset", {}),
    "ll4al": ("ll4al", {}),
    "vaal": ("vaal", {}),
    "badge": ("badge", {}),
    "saal": ("saal", {"rho": RHO}),
    "saal-kmeans++": ("saal", {"rho": RHO, "diversity": "kmeans++"}),
    "saal-diff": ("saal", {"rho": RHO, "objective": "diff"}),
    "saal-adaptive": ("saal", {"rho": RHO, "adaptive": True}),
}
"""The rows of Table 1: for each, the name of the strategy and its options."""


@dataclass(frozen=True)
class Protocol:
    """The settings of active learning on one data set (Section 4.1).

    Attributes:
        preset: name of the preset.
        dataset: name of the data set.
        optimizer: "adam", or "sam" over SGD with momentum 0.9.
        initial: number of balanced labels to begin with.
        k: labels bought in each round.
        candidates: unlabelled samples to choose from in each round.
        rounds: number of acquisitions.
        epochs: epochs of each training, which begins from new weights.
        batch_size: batch size of training.
        learning_rate: learning rate of Adam, or of SAM's SGD.
        width: channels of the ResNet-18's first stage.
        stem_stride: stride of its first convolution.
        tested: number of test images, evenly spaced over the test part; None for all.
        at_once: batch size of the strategies. It is fixed, so that a resumed run rounds as an uninterrupted one does.
        vae_width: channels of the first layer of VAAL's autoencoder.
    """

    preset: PresetName
    dataset: str
    optimizer: OptimizerName
    initial: int = 20
    k: int = 10
    candidates: int = 2000
    rounds: int = 100
    epochs: int = 50
    batch_size: int = 10
    learning_rate: float = 1e-3
    width: int = 64
    stem_stride: int = 1
    tested: int | None = None
    at_once: int = 40
    vae_width: int = 128

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that differ from the preset's."""
        given = protocol(self.preset, self.dataset, self.optimizer)
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in mine.items() if value != getattr(given, name)}

    @property
    def name(self) -> str:
        """Optimizer, preset and changed settings, for names of folders and files: "adam-cpu-width8"."""
        return "-".join([self.optimizer, self.preset, *(f"{name}{value}" for name, value in self.changed.items())])

    @property
    def title(self) -> str:
        """Preset and changed settings in words: "preset cpu, width 8"."""
        return ", ".join([f"preset {self.preset}", *(f"{name} {value}" for name, value in self.changed.items())])

    def model(self, data: Split, device: str = "cpu") -> Callable[[], nn.Module]:
        """A function that makes networks for `data` on `device`; their weights are drawn on the CPU."""
        channels = data.images.shape[1]
        return lambda: resnet18(data.classes, channels, self.width, self.stem_stride).to(device)

    def optimiser(self, groups: list[dict[str, Any]]) -> Optimizer:
        """The optimizer of the given parameter groups."""
        if self.optimizer == "adam":
            return torch.optim.Adam(groups, lr=self.learning_rate, fused=True)
        return SAM(groups, torch.optim.SGD, rho=RHO, lr=self.learning_rate, momentum=0.9)

    def training(self) -> Training:
        """The training of each round."""
        return Training(epochs=self.epochs, batch_size=self.batch_size, optimiser=self.optimiser, progress=False)

    def strategy(self, name: str) -> Strategy:
        """The strategy of that name in `STRATEGIES`.

        Raises:
            ValueError: unknown name.
        """
        if name not in STRATEGIES:
            raise ValueError(f"expected strategies among {', '.join(STRATEGIES)}; got {name!r}")
        kind, options = STRATEGIES[name]
        if kind == "saal":
            return make(kind, **options, options={"batch_size": self.at_once, "progress": False})
        if kind == "vaal":
            options = {**options, "width": self.vae_width}
        return make(kind, **options, **({} if kind == "random" else {"batch_size": self.at_once}))

    def evaluation(self, data: Split) -> Accuracy:
        """Accuracy on the `tested` test images."""
        count = len(data.test_labels) if self.tested is None else min(self.tested, len(data.test_labels))
        rows = torch.arange(count) * len(data.test_labels) // count
        return Accuracy(data.test_images[rows], data.test_labels[rows])

    def start(self, data: Split, seed: int) -> tuple[Tensor, Tensor]:
        """Positions and labels of the first labelled samples: random, balanced, and the same for all strategies."""
        order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))
        rows = order[balanced(data.labels[order], data.classes, self.initial)]
        return rows, data.labels[rows]


def protocol(preset: str, dataset: str, optimizer: str, **changes: int | None) -> Protocol:
    """The protocol of a preset, with some of its settings changed.

    "paper": 20 labels, 10 a round out of 2,000 candidates, 100 rounds, 50 epochs, ResNet-18, learning rate 1e-3; CIFAR-100:
    1,000 labels, 100 a round, and learning rate 1e-1 for SAM (Section 4.1). The batch size of 10 and the 3×3 stem are those
    of the published code.

    "cpu": a quarter of the paper's width (also of VAAL's autoencoder) and of its candidates, a stem of stride 2, half of the
    epochs, 12 rounds, 4,000 test images; CIFAR-100 begins with 200 labels and buys 20 a round. Batch size and learning rates
    are the paper's.

    Args:
        preset: name of the preset.
        dataset: name of the data set.
        optimizer: "adam" or "sam".
        **changes: settings of `Protocol` that replace the preset's; None keeps the preset's.

    Raises:
        ValueError: unknown name, a setting below 1, or fewer candidates than `k`.
    """
    for what, value, known in (
        ("preset", preset, get_args(PresetName)),
        ("data set", dataset, tuple(CLASSES)),
        ("optimizer", optimizer, get_args(OptimizerName)),
    ):
        if value not in known:
            raise ValueError(f"unknown {what} {value!r}: expected one of {', '.join(known)}")
    settings = _preset_settings(preset, dataset, optimizer)
    for name, number in changes.items():
        if number is not None:
            if number < 1:
                raise ValueError(f"expected {name} >= 1, got {number}")
            settings[name] = number
    made = Protocol(preset, dataset, optimizer, **settings)  # type: ignore[arg-type] # the names were checked above
    if made.candidates < made.k:
        raise ValueError(f"expected candidates >= {made.k}, which are chosen from them each round; got {made.candidates}")
    return made


def _preset_settings(preset: str, dataset: str, optimizer: str) -> dict[str, Any]:
    """The preset's settings that differ from the defaults of `Protocol`."""
    cifar100 = dataset == "cifar100"
    settings: dict[str, Any] = {"learning_rate": 1e-1 if cifar100 and optimizer == "sam" else 1e-3}
    if preset == "paper":
        return settings | ({"initial": 1000, "k": 100} if cifar100 else {})
    return settings | {
        "width": 16,
        "stem_stride": 1 if dataset == "digits" else 2,  # the last stage would halve 8×8 pixels to none
        "candidates": 500,
        "epochs": 25,
        "rounds": 12,
        "tested": 4000,
        "at_once": 125,
        "vae_width": 32,
        **({"initial": 200, "k": 20} if cifar100 else {}),
    }
