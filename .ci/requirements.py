"""Prints the requirements of an extra in pyproject.toml, a line each.

python .ci/requirements.py EXTRA             what the extra adds, without the extras that it includes
python .ci/requirements.py --all EXTRA       with those, and what the package itself requires
python .ci/requirements.py --build           what builds the package
python .ci/requirements.py --lowest EXTRA    all of these and the build's, each at its lowest version: `x>=1` becomes `x==1`
"""

import sys
from pathlib import Path

import tomli
from packaging.requirements import Requirement

PYPROJECT = tomli.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def required(extra: str) -> tuple[list[Requirement], list[str]]:
    """What an extra adds, and the extras that it includes."""
    lines = [Requirement(line) for line in PROJECT["optional-dependencies"][extra]]
    included = [name for line in lines if line.name == PROJECT["name"] for name in sorted(line.extras)]
    return [line for line in lines if line.name != PROJECT["name"]], included


def lowest(requirement: Requirement) -> str:
    """The requirement's lowest version alone."""
    (version,) = (s.version for s in requirement.specifier if s.operator == ">=")
    return f"{requirement.name}=={version}"


def main(extra: str, *, everything: bool, build: bool) -> None:
    """Prints them."""
    found = [Requirement(line) for line in PROJECT["dependencies"]] if everything else []
    found += [Requirement(line) for line in PYPROJECT["build-system"]["requires"]] if build else []
    extras = [extra]
    for name in extras:  # grows meanwhile
        added, included = required(name)
        found += added
        extras += included if everything else []
    print(*sorted({lowest(r) if build else str(r) for r in found}), sep="\n")


if __name__ == "__main__":
    option = sys.argv[1] if len(sys.argv) > 2 else ""
    if sys.argv[-1] == "--build":
        sys.exit(print(*PYPROJECT["build-system"]["requires"], sep="\n"))
    main(sys.argv[-1], everything=option in ("--all", "--lowest"), build=option == "--lowest")
