"""The commands of `saal-fast`, one function each. This module needs typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._config import show_config
from ..selection import Diversity
from .datasets import DataName
from .paper.subcommands import app as experiment

app = typer.Typer(
    help="Sharpness-aware active learning at the speed of inference.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(experiment, name="experiment")


@app.command()
def demo(
    *,
    data: Annotated[DataName, typer.Option(help="Data set; auto is Fashion-MNIST if it is found, else digits.")] = "auto",
    data_root: Annotated[Path | None, typer.Option(help="Folder of Fashion-MNIST, if not a usual one.")] = None,
    labels: Annotated[int, typer.Option(help="Labelled samples to train on, balanced over the classes.")] = 100,
    pool: Annotated[
        int | None, typer.Option(help="Unlabelled samples to score.", show_default="2000, or all there are")
    ] = None,
    k: Annotated[int, typer.Option(help="Samples to pick.")] = 10,
    rho: Annotated[float, typer.Option(help="Radius of the perturbation.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed of every draw and of the training.")] = 0,
    diversity: Annotated[Diversity | None, typer.Option(help="Keep picks apart.", show_default="the highest scores")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write pictures and table into.")] = Path("saal-fast-demo"),
) -> None:
    """Train a small network, score a pool of images, and show what SAAL would label first."""
    from .demo import Settings, prepare, run  # noqa: PLC0415 - the other commands need no matplotlib

    try:
        partition = prepare(Settings(data, data_root, labels, pool, k, rho, seed, diversity, out))
    except (OSError, ValueError) as error:
        typer.echo(f"saal-fast demo: {error}", err=True)
        raise typer.Exit(2) from error
    run(partition)


@app.command()
def config() -> None:
    """Print what this installation of saal_fast was built with."""
    typer.echo(show_config())
