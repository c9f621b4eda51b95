"""What the experiments' commands can be told. Importing this needs typer."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer

from ..._utils.paths import home_of


class DatasetChoice(str, Enum):
    """The names of `experiments.data.dataset`."""

    fashion_mnist = "fashion-mnist"
    svhn = "svhn"
    cifar10 = "cifar10"
    cifar100 = "cifar100"
    digits = "digits"


class OptimizerChoice(str, Enum):
    """What trains the network."""

    adam = "adam"
    sam = "sam"


class PresetChoice(str, Enum):
    """The presets of `experiments.protocol.protocol`."""

    paper = "paper"
    cpu = "cpu"


Dataset = Annotated[DatasetChoice, typer.Option(help="Data set.")]
Optimizer = Annotated[OptimizerChoice, typer.Option(help="What trains the network.")]
Preset = Annotated[PresetChoice, typer.Option(help="The paper's protocol, or one cut for a CPU.")]
Results = Annotated[Path, typer.Option(help="Folder of the cells.", callback=home_of)]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data set, if not a usual one.")]
Download = Annotated[bool, typer.Option("--download", help="Let torchvision download a data set that is missing.")]
Device = Annotated[str, typer.Option(help="Where the networks are, as torch names it.")]
Out = Annotated[Path, typer.Option(help="Folder to write into.", callback=home_of)]
Beside = Annotated[Path | None, typer.Option(help="Folder to write into.", show_default="that of the cells")]

_OWN = "the preset's"
Width = Annotated[int | None, typer.Option(min=1, help="Channels of the network's first stage.", show_default=_OWN)]
Rounds = Annotated[int | None, typer.Option(min=1, help="Acquisitions of a run.", show_default=_OWN)]
Epochs = Annotated[int | None, typer.Option(min=1, help="Of each training.", show_default=_OWN)]
Candidates = Annotated[int | None, typer.Option(min=1, help="Unlabelled samples to choose from.", show_default=_OWN)]

USUAL = "random,entropy,coreset,badge,saal,saal-kmeans++"
TIMED = "random,entropy,coreset,ll4al,vaal,badge,saal,saal-kmeans++"
RESULTS = Path("saal-fast-results")

_NAMES, _RUNS, _ALL = "Names, separated by commas.", "Runs of each strategy, with seeds from 0.", "all there are"
ToRun = Annotated[str | None, typer.Option(help=_NAMES, show_default=f"run {USUAL}; draw {_ALL}")]
ToDraw = Annotated[str | None, typer.Option(help=_NAMES, show_default=_ALL)]
ToTime = Annotated[str, typer.Option(help=_NAMES)]
SeedsToRun = Annotated[int | None, typer.Option(min=1, help=_RUNS, show_default=f"run 3; draw {_ALL}")]
SeedsToDraw = Annotated[int | None, typer.Option(min=1, help=_RUNS, show_default=_ALL)]


def check_device(name: str) -> None:
    """Raises where torch has no such device here.

    Raises:
        ValueError: so it is.
    """
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:
        what = str(error).partition("\n")[0]
        raise ValueError(f"expected a device that torch has here (cpu, cuda, cuda:1, ...), got {name!r}: {what}") from error
