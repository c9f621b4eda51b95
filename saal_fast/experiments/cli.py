"""The `saal-fast` command, down to a plain word where its own packages are not installed."""

from __future__ import annotations

import sys

# What the demo extra installs, by the names one imports.
EXTRA = frozenset({"matplotlib", "scipy", "sklearn", "torchvision", "tqdm", "typer"})


def main() -> None:
    """Run the command line; the entry point of the `saal-fast` script."""
    try:
        from .commands import app  # noqa: PLC0415 - imports the optional typer

        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        sys.exit(f'saal-fast: the package {missing} is not installed: pip install "saal-fast[demo]"')


if __name__ == "__main__":
    main()
