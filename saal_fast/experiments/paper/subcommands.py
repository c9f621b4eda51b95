"""The subcommands of `saal-fast experiment`. This module needs typer."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..._utils.paths import home_of
from . import options
from .cells import Cell, existing_cells, run_all, summarize
from .protocol import STRATEGIES, Protocol, protocol
from .splits import load_split
from .table1 import as_csv, gather, markdown

app = typer.Typer(help="The paper's classification experiments.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def table1(
    *,
    dataset: options.Dataset = "fashion-mnist",
    optimizer: options.Optimizer = "adam",
    preset: options.Preset = "cpu",
    width: options.Width = None,
    rounds: options.Rounds = None,
    epochs: options.Epochs = None,
    candidates: options.Candidates = None,
    strategies: options.StrategiesToRun = None,
    seeds: options.SeedsToRun = None,
    results: options.Results = options.RESULTS_FOLDER,
    data_root: options.DataRoot = None,
    download: options.Download = False,
    device: options.Device = "cpu",
    draw_only: Annotated[bool, typer.Option("--draw-only", help="Run nothing; draw what cells there are.")] = False,
    out: options.OutOrResults = None,
) -> None:
    """Run what cells are missing (any number of processes may share a results folder), and draw Table 1."""
    failed: list[Cell] = []
    locked: list[Cell] = []
    with _errors_reported("table1"):
        p = protocol(preset, dataset, optimizer, width=width, rounds=rounds, epochs=epochs, candidates=candidates)
        names = options.strategy_names(strategies)
        if not draw_only:
            options.check_device(device)
            results.mkdir(parents=True, exist_ok=True)
            chosen = names or options.DEFAULT_STRATEGIES.split(",")
            wanted = [Cell(p, name, seed) for seed in range(seeds or options.DEFAULT_SEEDS) for name in chosen]
            before = summarize(wanted, results, _log)
            failed += before.failed
            if before.missing:
                data = load_split(dataset, data_root, download=download)
                after = run_all(before.missing, data, results, log=_log, device=device)
                failed, locked = failed + after.failed, after.missing
        found = summarize(_selected_cells(p, names, seeds, results, without=failed), results, _log)
        failed += found.failed
        rows = gather(found.curves, names or tuple(STRATEGIES))
        table = markdown(p, rows)
        stem = _stem(out or results, "table1", p.dataset, p.name)
        stem.with_suffix(".md").write_text(f"{table}\n", encoding="utf-8")
        stem.with_suffix(".csv").write_text(as_csv(rows), encoding="utf-8")
    typer.echo(table)
    if locked:
        _log(f"other processes are running {len(locked)} more cells")
    _exit_if_failed(failed)


@app.command()
def figure6(
    *,
    dataset: options.Dataset = "fashion-mnist",
    optimizer: options.Optimizer = "adam",
    preset: options.Preset = "cpu",
    width: options.Width = None,
    rounds: options.Rounds = None,
    epochs: options.Epochs = None,
    candidates: options.Candidates = None,
    strategies: options.StrategiesToDraw = None,
    seeds: options.SeedsToDraw = None,
    results: options.Results = options.RESULTS_FOLDER,
    out: options.OutOrResults = None,
) -> None:
    """Draw learning curves of the cells that `table1` has run."""
    from . import figure6 as figure  # noqa: PLC0415 - draws with the optional matplotlib

    with _errors_reported("figure6"):
        p = protocol(preset, dataset, optimizer, width=width, rounds=rounds, epochs=epochs, candidates=candidates)
        names = options.strategy_names(strategies)
        found = summarize(_selected_cells(p, names, seeds, results), results, _log)
        if not found.curves:
            raise ValueError(f"{results} holds no whole cell of these: run table1 first")
        stem = _stem(out or results, "figure6", p.dataset, p.name)
        figure.write(p, gather(found.curves, names or tuple(STRATEGIES)), stem)
    typer.echo(f"wrote {stem}.png and {stem}.csv")
    _exit_if_failed(found.failed)


@app.command()
def figure2(
    *,
    dataset: options.Dataset = "fashion-mnist",
    preset: options.Preset = "cpu",
    width: options.Width = None,
    rounds: options.Rounds = None,
    epochs: options.Epochs = None,
    candidates: options.Candidates = None,
    strategies: options.StrategiesToTime = options.TIMED_STRATEGIES,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each acquisition; the median is drawn.")] = 3,
    data_root: options.DataRoot = None,
    download: options.Download = False,
    device: options.Device = "cpu",
    out: options.Out = options.RESULTS_FOLDER,
) -> None:
    """Time one acquisition by each strategy, SAAL by each engine, and one training; leave the machine alone meanwhile."""
    from . import figure2 as figure  # noqa: PLC0415 - draws with the optional matplotlib

    with _errors_reported("figure2"):
        options.check_device(device)
        names = options.strategy_names(strategies) or []
        p = protocol(preset, dataset, "adam", width=width, rounds=rounds, epochs=epochs, candidates=candidates)
        data = load_split(dataset, data_root, download=download)
        stem = _stem(out, "figure2", p.dataset, p.name.removeprefix("adam-"))
        times = figure.measure(p, data, names, repeats=repeats, device=device, log=_log)
        figure.write(p, times, stem)
    typer.echo(figure.table(times))
    typer.echo(f"wrote {stem}.png and {stem}.csv")


def _selected_cells(
    p: Protocol, names: list[str] | None, seeds: int | None, results: Path, without: Collection[Cell] = ()
) -> list[Cell]:
    """The protocol's existing cells of the given strategies (None: all) and number of seeds (None: all)."""
    return [
        cell
        for cell in existing_cells(p, results)
        if (names is None or cell.strategy in names) and (seeds is None or cell.seed < seeds) and cell not in without
    ]


def _stem(out: Path, *parts: str) -> Path:
    """The path of the files to write, without their ending; creates the folder."""
    folder = home_of(out)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "-".join(parts)


def _exit_if_failed(failed: list[Cell]) -> None:
    """Names the failed cells and exits with code 1, if there are any."""
    if failed:
        _log(f"{len(failed)} cells failed: {'; '.join(map(str, failed))}")
        raise typer.Exit(1)


def _log(line: str) -> None:
    typer.echo(line, err=True)


@contextmanager
def _errors_reported(command: str) -> Iterator[None]:
    """Reports an error that the user can mend in one line, and exits with code 2."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        _log(f"saal-fast experiment {command}: {error}")
        raise typer.Exit(2) from error
