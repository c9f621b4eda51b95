"""What `saal-fast` can be told to do, one function a subcommand. Importing this needs typer."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

import saal_fast

from .paper.commands import app as experiments

app = typer.Typer(
    help="Sharpness-aware active learning at the speed of inference.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(experiments, name="experiment")


class DataChoice(str, Enum):
    """The names of `saal_fast.experiments.datasets.load`."""

    auto = "auto"
    digits = "digits"
    fashion_mnist = "fashion-mnist"


class DiversityChoice(str, Enum):
    """The ways of `saal_fast.select` to keep picks apart."""

    kmeans_plusplus = "kmeans++"
    badge = "badge"


@app.command()
def demo(
    *,
    data: Annotated[
        DataChoice, typer.Option(help="Data set; auto is Fashion-MNIST where it lies, else digits.")
    ] = DataChoice.auto,
    data_root: Annotated[Path | None, typer.Option(help="Folder of Fashion-MNIST, if not a usual one.")] = None,
    labels: Annotated[int, typer.Option(help="Labelled samples to train on, drawn evenly.")] = 100,
    pool: Annotated[
        int | None, typer.Option(help="Unlabelled samples to score.", show_default="2000, or all there are")
    ] = None,
    k: Annotated[int, typer.Option(help="Samples to pick.")] = 10,
    rho: Annotated[float, typer.Option(help="Radius of the perturbation.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed of every draw and of the training.")] = 0,
    diversity: Annotated[
        DiversityChoice | None, typer.Option(help="Keep picks apart.", show_default="the highest scores")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write pictures and table into.")] = Path("saal-fast-demo"),
) -> None:
    """Train a small network, score a pool of images, and show what SAAL would label first."""
    from .demo import Settings, prepare, run  # noqa: PLC0415 - the other commands need no matplotlib

    try:
        settings = Settings(
            data=data.value,
            data_root=data_root,
            labels=labels,
            pool=pool,
            k=k,
            rho=rho,
            seed=seed,
            diversity=None if diversity is None else diversity.value,
            out=out,
        )
        task = prepare(settings)
    except (OSError, ValueError) as error:
        typer.echo(f"saal-fast demo: {error}", err=True)
        raise typer.Exit(2) from error
    run(task)


@app.command()
def config() -> None:
    """Print what this installation of saal_fast was built with."""
    typer.echo(saal_fast.show_config())
