"""Entry point of the `saal-fast` script. It names the extra to install where one of the extra's packages is missing."""

from __future__ import annotations

import sys

EXTRA_PACKAGES = frozenset({"matplotlib", "scipy", "sklearn", "torchvision", "tqdm", "typer"})
"""Import names of what the extra `demo` installs."""


def main() -> None:
    """Runs the command line."""
    try:
        from .commands import app  # noqa: PLC0415 - imports the optional typer

        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA_PACKAGES:
            raise
        sys.exit(f'saal-fast: the package {missing} is not installed: pip install "saal-fast[demo]"')


if __name__ == "__main__":
    main()
