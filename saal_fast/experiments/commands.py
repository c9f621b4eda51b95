"""`saal-fast experiment ...`. Importing this needs typer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from . import cells
from . import table1 as table
from .data import dataset as load
from .protocol import STRATEGIES
from .protocol import protocol as preset_of

app = typer.Typer(help="The paper's classification experiments.", no_args_is_help=True, rich_markup_mode=None)


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
Strategies = Annotated[str, typer.Option(help="Names, separated by commas.")]
Seeds = Annotated[int, typer.Option(min=1, help="Runs of each strategy, with seeds from 0.")]
Results = Annotated[Path, typer.Option(help="Folder of the cells.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data set, if not a usual one.")]
Download = Annotated[bool, typer.Option("--download", help="Let torchvision download a data set that is missing.")]
Device = Annotated[str, typer.Option(help="Where the networks are, as torch names it.")]
Out = Annotated[Path, typer.Option(help="Folder to write into.")]

USUAL = "random,entropy,coreset,badge,saal,saal-kmeans++"
TIMED = "random,entropy,coreset,ll4al,vaal,badge,saal,saal-kmeans++"
RESULTS = Path("saal-fast-results")


@app.command()
def table1(
    *,
    dataset: Dataset = DatasetChoice.fashion_mnist,
    optimizer: Optimizer = OptimizerChoice.adam,
    preset: Preset = PresetChoice.cpu,
    strategies: Strategies = USUAL,
    seeds: Seeds = 3,
    results: Results = RESULTS,
    data_root: DataRoot = None,
    download: Download = False,
    device: Device = "cpu",
    draw_only: Annotated[bool, typer.Option("--draw-only", help="Run nothing; draw what cells there are.")] = False,
    out: Out = RESULTS,
) -> None:
    """Run what cells are missing (any number of processes may share a results folder), and draw Table 1."""
    with _told("table1"):
        names = _names(strategies)
        protocol = preset_of(preset.value, dataset.value, optimizer.value)
        wanted = [cells.Cell(protocol, name, seed) for seed in range(seeds) for name in names]
        elsewhere: list[cells.Cell] = []
        failed = [] if draw_only else _bad(wanted, results)
        if not draw_only and any(cells.curve(cell, results) is None for cell in wanted if cell not in failed):
            data = load(dataset.value, data_root, download=download)
            elsewhere = cells.run_all(
                [cell for cell in wanted if cell not in failed], data, results, told=_tell, device=device, failed=failed
            )
        rows = table.gather(protocol, names, range(seeds), results, failed)
        drawn = table.markdown(protocol, rows)
        out.mkdir(parents=True, exist_ok=True)
        stem = out / f"table1-{dataset.value}-{optimizer.value}-{preset.value}"
        stem.with_suffix(".md").write_text(f"{drawn}\n", encoding="utf-8")
        stem.with_suffix(".csv").write_text(table.as_csv(rows), encoding="utf-8")
    typer.echo(drawn)
    if elsewhere:
        typer.echo(f"other processes are at {len(elsewhere)} more cells", err=True)
    if failed:
        typer.echo(f"{len(failed)} cells failed", err=True)
        raise typer.Exit(1)


@app.command()
def figure6(
    *,
    dataset: Dataset = DatasetChoice.fashion_mnist,
    optimizer: Optimizer = OptimizerChoice.adam,
    preset: Preset = PresetChoice.cpu,
    strategies: Strategies = USUAL,
    seeds: Seeds = 3,
    results: Results = RESULTS,
    out: Out = RESULTS,
) -> None:
    """Draw learning curves of the cells that `table1` has run."""
    from . import figure6 as figure  # noqa: PLC0415 - draws with the optional matplotlib

    with _told("figure6"):
        protocol = preset_of(preset.value, dataset.value, optimizer.value)
        rows = table.gather(protocol, _names(strategies), range(seeds), results)
        if not rows:
            raise ValueError(f"{results} holds no whole cell of these: run table1 first")
        out.mkdir(parents=True, exist_ok=True)
        stem = out / f"figure6-{dataset.value}-{optimizer.value}-{preset.value}"
        figure.write(protocol, rows, stem)
    typer.echo(f"wrote {stem}.png and {stem}.csv")


@app.command()
def figure2(
    *,
    dataset: Dataset = DatasetChoice.fashion_mnist,
    preset: Preset = PresetChoice.cpu,
    strategies: Strategies = TIMED,
    repeats: Annotated[int, typer.Option(min=1, help="Of each acquisition; the median is drawn.")] = 3,
    data_root: DataRoot = None,
    download: Download = False,
    device: Device = "cpu",
    out: Out = RESULTS,
) -> None:
    """Time one acquisition by each strategy, SAAL by each engine, and one training; leave the machine alone meanwhile."""
    from . import figure2 as figure  # noqa: PLC0415 - draws with the optional matplotlib

    with _told("figure2"):
        names = _names(strategies)
        protocol = preset_of(preset.value, dataset.value, "adam")
        data = load(dataset.value, data_root, download=download)
        out.mkdir(parents=True, exist_ok=True)
        times = figure.measure(protocol, data, names, repeats=repeats, device=device, told=_tell)
        stem = out / f"figure2-{dataset.value}-{preset.value}"
        figure.write(protocol, times, stem)
    typer.echo(figure.table(times))
    typer.echo(f"wrote {stem}.png and {stem}.csv")


def _bad(wanted: list[cells.Cell], results: Path) -> list[cells.Cell]:
    """The cells whose records cannot be read; each is told."""
    bad = []
    for cell in wanted:
        try:
            cells.curve(cell, results)
        except ValueError as error:  # noqa: PERF203 - cell by cell
            _tell(f"{cell}: {error}")
            bad.append(cell)
    return bad


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _names(strategies: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in strategies.split(",")))
    unknown = [name for name in names if name not in STRATEGIES]
    if unknown:
        raise ValueError(f"expected strategies among {', '.join(STRATEGIES)}; got {', '.join(map(repr, unknown))}")
    return names


@contextmanager
def _told(command: str) -> Iterator[None]:
    """Tells errors that a user can do something about in a line, and ends with 2."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        typer.echo(f"saal-fast experiment {command}: {error}", err=True)
        raise typer.Exit(2) from error
