"""`saal-fast experiment ...`. Importing this needs typer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..._utils.paths import home_of
from . import cells
from . import table1 as table
from .data import dataset as load
from .options import (
    RESULTS,
    TIMED,
    USUAL,
    Beside,
    Candidates,
    DataRoot,
    Dataset,
    DatasetChoice,
    Device,
    Download,
    Epochs,
    Optimizer,
    OptimizerChoice,
    Out,
    Preset,
    PresetChoice,
    Results,
    Rounds,
    SeedsToDraw,
    SeedsToRun,
    ToDraw,
    ToRun,
    ToTime,
    Width,
    check_device,
)
from .protocol import STRATEGIES, Protocol
from .protocol import protocol as preset_of

app = typer.Typer(help="The paper's classification experiments.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def table1(
    *,
    dataset: Dataset = DatasetChoice.fashion_mnist,
    optimizer: Optimizer = OptimizerChoice.adam,
    preset: Preset = PresetChoice.cpu,
    width: Width = None,
    rounds: Rounds = None,
    epochs: Epochs = None,
    candidates: Candidates = None,
    strategies: ToRun = None,
    seeds: SeedsToRun = None,
    results: Results = RESULTS,
    data_root: DataRoot = None,
    download: Download = False,
    device: Device = "cpu",
    draw_only: Annotated[bool, typer.Option("--draw-only", help="Run nothing; draw what cells there are.")] = False,
    out: Beside = None,
) -> None:
    """Run what cells are missing (any number of processes may share a results folder), and draw Table 1."""
    bad: list[cells.Cell] = []
    elsewhere: list[cells.Cell] = []
    with _told("table1"):
        changes = {"width": width, "rounds": rounds, "epochs": epochs, "candidates": candidates}
        protocol = preset_of(preset.value, dataset.value, optimizer.value, **changes)
        names = None if strategies is None else _names(strategies)
        if not draw_only:
            check_device(device)
            results.mkdir(parents=True, exist_ok=True)
            each = [cells.Cell(protocol, name, seed) for seed in range(seeds or 3) for name in names or _names(USUAL)]
            before = cells.standing(each, results, _tell)
            bad += before.bad
            if before.missing:
                data = load(dataset.value, data_root, download=download)
                after = cells.run_all(before.missing, data, results, told=_tell, device=device)
                bad, elsewhere = bad + after.bad, after.missing
        found = cells.standing(_there(protocol, names, seeds, results, but=bad), results, _tell)
        bad += found.bad
        rows = table.gather(found.curves, names or tuple(STRATEGIES))
        drawn = table.markdown(protocol, rows)
        stem = _stem(out or results, "table1", protocol.dataset, protocol.name)
        stem.with_suffix(".md").write_text(f"{drawn}\n", encoding="utf-8")
        stem.with_suffix(".csv").write_text(table.as_csv(rows), encoding="utf-8")
    typer.echo(drawn)
    if elsewhere:
        _tell(f"other processes are at {len(elsewhere)} more cells")
    _end(bad)


@app.command()
def figure6(
    *,
    dataset: Dataset = DatasetChoice.fashion_mnist,
    optimizer: Optimizer = OptimizerChoice.adam,
    preset: Preset = PresetChoice.cpu,
    width: Width = None,
    rounds: Rounds = None,
    epochs: Epochs = None,
    candidates: Candidates = None,
    strategies: ToDraw = None,
    seeds: SeedsToDraw = None,
    results: Results = RESULTS,
    out: Beside = None,
) -> None:
    """Draw learning curves of the cells that `table1` has run."""
    from . import figure6 as figure  # noqa: PLC0415 - draws with the optional matplotlib

    with _told("figure6"):
        changes = {"width": width, "rounds": rounds, "epochs": epochs, "candidates": candidates}
        protocol = preset_of(preset.value, dataset.value, optimizer.value, **changes)
        names = None if strategies is None else _names(strategies)
        found = cells.standing(_there(protocol, names, seeds, results), results, _tell)
        if not found.curves:
            raise ValueError(f"{results} holds no whole cell of these: run table1 first")
        stem = _stem(out or results, "figure6", protocol.dataset, protocol.name)
        figure.write(protocol, table.gather(found.curves, names or tuple(STRATEGIES)), stem)
    typer.echo(f"wrote {stem}.png and {stem}.csv")
    _end(found.bad)


@app.command()
def figure2(
    *,
    dataset: Dataset = DatasetChoice.fashion_mnist,
    preset: Preset = PresetChoice.cpu,
    width: Width = None,
    rounds: Rounds = None,
    epochs: Epochs = None,
    candidates: Candidates = None,
    strategies: ToTime = TIMED,
    repeats: Annotated[int, typer.Option(min=1, help="Of each acquisition; the median is drawn.")] = 3,
    data_root: DataRoot = None,
    download: Download = False,
    device: Device = "cpu",
    out: Out = RESULTS,
) -> None:
    """Time one acquisition by each strategy, SAAL by each engine, and one training; leave the machine alone meanwhile."""
    from . import figure2 as figure  # noqa: PLC0415 - draws with the optional matplotlib

    with _told("figure2"):
        check_device(device)
        names = _names(strategies)
        changes = {"width": width, "rounds": rounds, "epochs": epochs, "candidates": candidates}
        protocol = preset_of(preset.value, dataset.value, "adam", **changes)
        data = load(dataset.value, data_root, download=download)
        stem = _stem(out, "figure2", protocol.dataset, protocol.name.removeprefix("adam-"))
        times = figure.measure(protocol, data, names, repeats=repeats, device=device, told=_tell)
        figure.write(protocol, times, stem)
    typer.echo(figure.table(times))
    typer.echo(f"wrote {stem}.png and {stem}.csv")


def _there(
    protocol: Protocol, names: list[str] | None, seeds: int | None, results: Path, but: list[cells.Cell] | None = None
) -> list[cells.Cell]:
    """The cells there are of the strategies and seeds that were named, of all where none was; without those in `but`."""
    return [
        cell
        for cell in cells.there(protocol, results)
        if (names is None or cell.strategy in names) and (seeds is None or cell.seed < seeds) and cell not in (but or ())
    ]


def _stem(out: Path, *parts: str) -> Path:
    """Where to write, without ending; its folder is made."""
    folder = home_of(out)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "-".join(parts)


def _end(bad: list[cells.Cell]) -> None:
    """Ends with 1 where cells failed, and names them."""
    if bad:
        _tell(f"{len(bad)} cells failed: {'; '.join(map(str, bad))}")
        raise typer.Exit(1)


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
