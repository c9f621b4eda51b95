"""How the experiments are run: the paper's protocol to the letter, and one cut for a CPU."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from ...learning import Accuracy, Training
from ...optim import SAM
from ...strategies import Strategy, make
from ..datasets import balanced
from ..networks import resnet18
from .data import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn
    from torch.optim import Optimizer

    from .data import Images

PresetName = Literal["paper", "cpu"]
OptimizerName = Literal["adam", "sam"]
RHO = 0.05  # of SAAL, and of SAM

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
"""The rows of the table: name of the strategy and its options."""


@dataclass(frozen=True)
class Protocol:
    """One way to run active learning on one data set (Section 4.1).

    Attributes:
        preset: its name.
        dataset: name of the data set.
        optimizer: "adam", or "sam" over SGD with momentum 0.9.
        initial: balanced labels to begin with.
        k: labels a round.
        candidates: unlabelled samples a round to choose from.
        rounds: acquisitions.
        epochs: of each training, from new weights.
        batch_size: of training.
        learning_rate: of Adam, or of SAM's SGD.
        width: channels of the ResNet-18's first stage.
        stem_stride: of its first convolution.
        tested: test images, evenly over the test part; None for all.
        at_once: samples that a strategy takes at once. A fixed size, so that a resumed run rounds as one that was never
            interrupted.
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
        """The settings that are not the preset's."""
        given = protocol(self.preset, self.dataset, self.optimizer)
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in mine.items() if value != getattr(given, name)}

    @property
    def name(self) -> str:
        """Optimiser, preset and what is changed of it, to name folders and files: "adam-cpu-width8"."""
        return "-".join([self.optimizer, self.preset, *(f"{name}{value}" for name, value in self.changed.items())])

    @property
    def title(self) -> str:
        """The same in words, of the preset on: "preset cpu, width 8"."""
        return ", ".join([f"preset {self.preset}", *(f"{name} {value}" for name, value in self.changed.items())])

    def model(self, data: Images, device: str = "cpu") -> Callable[[], nn.Module]:
        """Makes networks for `data` on `device`; their weights are drawn on the CPU."""
        channels = data.images.shape[1]
        return lambda: resnet18(data.classes, channels, self.width, self.stem_stride).to(device)

    def optimiser(self, groups: list[dict[str, Any]]) -> Optimizer:
        """The optimiser of a training, from parameter groups."""
        if self.optimizer == "adam":
            return torch.optim.Adam(groups, lr=self.learning_rate, fused=True)
        return SAM(groups, torch.optim.SGD, rho=RHO, lr=self.learning_rate, momentum=0.9)

    def training(self) -> Training:
        """The training of a round."""
        return Training(epochs=self.epochs, batch_size=self.batch_size, optimiser=self.optimiser, progress=False)

    def strategy(self, name: str) -> Strategy:
        """A strategy of `STRATEGIES`.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in STRATEGIES:
            raise ValueError(f"expected strategies among {', '.join(STRATEGIES)}; got {name!r}")
        kind, options = STRATEGIES[name]
        if kind == "saal":
            return make(kind, **options, options={"batch_size": self.at_once, "progress": False})
        if kind == "vaal":
            options = {**options, "width": self.vae_width}
        return make(kind, **options, **({} if kind == "random" else {"batch_size": self.at_once}))

    def evaluation(self, data: Images) -> Accuracy:
        """Accuracy on the test images."""
        count = len(data.test_labels) if self.tested is None else min(self.tested, len(data.test_labels))
        rows = torch.arange(count) * len(data.test_labels) // count
        return Accuracy(data.test_images[rows], data.test_labels[rows])

    def start(self, data: Images, seed: int) -> tuple[Tensor, Tensor]:
        """The first labelled samples, random but balanced, the same for all strategies: positions and labels."""
        order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))
        rows = order[balanced(data.labels[order], data.classes, self.initial)]
        return rows, data.labels[rows]


def protocol(preset: str, dataset: str, optimizer: str, **changes: int | None) -> Protocol:
    """The protocol of a preset, or one that differs from it.

    "paper": 20 labels, 10 a round of 2,000 candidates, 100 rounds, 50 epochs, ResNet-18, rate 1e-3; CIFAR-100: 1,000 labels,
    100 a round, and SAM's rate 1e-1 (Section 4.1). Batches of 10 and the 3×3 stem are the published code's.

    "cpu": of these, a quarter of the width (and of VAAL's autoencoder's), a stem of stride 2, a quarter of the candidates,
    half of the epochs, 12 rounds, 4,000 test images; CIFAR-100 begins with 200 labels and asks for 20. The batch size and
    the rates are the paper's.

    Args:
        preset: its name.
        dataset: name of the data set.
        optimizer: "adam" or "sam".
        **changes: settings of `Protocol` in place of the preset's; None leaves the preset's.

    Raises:
        ValueError: an unknown name, a setting below 1, or fewer candidates than are chosen.
    """
    for what, value, known in (
        ("preset", preset, get_args(PresetName)),
        ("data set", dataset, tuple(CLASSES)),
        ("optimizer", optimizer, get_args(OptimizerName)),
    ):
        if value not in known:
            raise ValueError(f"unknown {what} {value!r}: expected one of {', '.join(known)}")
    hundred = dataset == "cifar100"
    settings: dict[str, Any] = {"learning_rate": 1e-1 if hundred and optimizer == "sam" else 1e-3}
    if preset == "paper":
        settings |= {"initial": 1000, "k": 100} if hundred else {}
    else:
        settings |= {
            "width": 16,
            "stem_stride": 2,
            "candidates": 500,
            "epochs": 25,
            "rounds": 12,
            "tested": 4000,
            "at_once": 125,
            "vae_width": 32,
        }
        settings |= {"initial": 200, "k": 20} if hundred else {}
        if dataset == "digits":  # of 8×8 pixels: another halving would leave none
            settings |= {"stem_stride": 1}
    made = Protocol(preset, dataset, optimizer, **settings)  # type: ignore[arg-type] # the names were checked above
    wanted: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    for name, value in wanted.items():
        if value < 1:
            raise ValueError(f"expected {name} >= 1, got {value}")
    made = replace(made, **wanted)
    if made.candidates < made.k:
        raise ValueError(f"expected candidates >= {made.k}, which are chosen from them each round; got {made.candidates}")
    return made
