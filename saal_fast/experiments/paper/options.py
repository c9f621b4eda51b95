"""The options that the subcommands of `saal-fast experiment` share. This module needs typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from ..._utils.paths import home_of
from . import protocol, splits

Dataset = Annotated[splits.DatasetName, typer.Option(help="Data set.")]
Optimizer = Annotated[protocol.OptimizerName, typer.Option(help="Optimizer that trains the network.")]
Preset = Annotated[protocol.PresetName, typer.Option(help="The paper's protocol, or a smaller one for a CPU.")]
Results = Annotated[Path, typer.Option(help="Folder of the cells.", callback=home_of)]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data set, if not a usual one.")]
Download = Annotated[bool, typer.Option("--download", help="Let torchvision download a data set that is missing.")]
Device = Annotated[str, typer.Option(help="Device of the networks, as torch names it.")]
Out = Annotated[Path, typer.Option(help="Folder to write into.", callback=home_of)]
OutOrResults = Annotated[Path | None, typer.Option(help="Folder to write into.", show_default="that of the cells")]

_PRESET = "the preset's"
Width = Annotated[int | None, typer.Option(min=1, help="Channels of the network's first stage.", show_default=_PRESET)]
Rounds = Annotated[int | None, typer.Option(min=1, help="Acquisitions of a run.", show_default=_PRESET)]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs of each training.", show_default=_PRESET)]
Candidates = Annotated[int | None, typer.Option(min=1, help="Unlabelled samples to choose from.", show_default=_PRESET)]

DEFAULT_STRATEGIES = "random,entropy,coreset,badge,saal,saal-kmeans++"
TIMED_STRATEGIES = "random,entropy,coreset,ll4al,vaal,badge,saal,saal-kmeans++"
DEFAULT_SEEDS = 3
RESULTS_FOLDER = Path("saal-fast-results")

_NAMES, _RUNS, _ALL = "Names, separated by commas.", "Runs of each strategy, with seeds from 0.", "all there are"
_RUN_STRATEGIES, _RUN_SEEDS = f"run {DEFAULT_STRATEGIES}; draw {_ALL}", f"run {DEFAULT_SEEDS}; draw {_ALL}"
StrategiesToRun = Annotated[str | None, typer.Option(help=_NAMES, show_default=_RUN_STRATEGIES)]
StrategiesToDraw = Annotated[str | None, typer.Option(help=_NAMES, show_default=_ALL)]
StrategiesToTime = Annotated[str, typer.Option(help=_NAMES)]
SeedsToRun = Annotated[int | None, typer.Option(min=1, help=_RUNS, show_default=_RUN_SEEDS)]
SeedsToDraw = Annotated[int | None, typer.Option(min=1, help=_RUNS, show_default=_ALL)]


def strategy_names(option: str | None) -> list[str] | None:
    """The names in a comma-separated option, each once; None where the option is not given.

    Raises:
        ValueError: a name is unknown.
    """
    if option is None:
        return None
    names = list(dict.fromkeys(name.strip() for name in option.split(",")))
    unknown = [name for name in names if name not in protocol.STRATEGIES]
    if unknown:
        known = ", ".join(protocol.STRATEGIES)
        raise ValueError(f"expected strategies among {known}; got {', '.join(map(repr, unknown))}")
    return names


def check_device(name: str) -> None:
    """Checks that torch has the device.

    Raises:
        ValueError: torch has no such device here.
    """
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"expected a device that torch has here (cpu, cuda, cuda:1, ...), got {name!r}: {reason}"
        ) from error
