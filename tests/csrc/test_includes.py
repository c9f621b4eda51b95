"""The folders of csrc: their includes point one way, and what is compiled per instruction set has no code to share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent.parent / "csrc"
SOURCES = {path.relative_to(CSRC).as_posix(): path.read_text() for path in CSRC.rglob("*.*") if path.suffix != ".in"}
BELOW = {
    "bindings": {"kmeans", "conv", "norm", "cuda", "support"},
    "cuda": {"kmeans"},
    "kmeans": {"support"},
    "conv": {"support"},
    "norm": {"support"},
    "support": set(),
}
PER_ISA = [name for name, text in SOURCES.items() if "SAAL_DEFINE_TABLE(" in text and name.endswith(".cpp")]


def own(name: str) -> set[str]:
    return set(re.findall(r'#include "([^"]+)"', SOURCES[name])) - {"build_info.h"}  # CMake writes that one


def others(name: str) -> set[str]:
    return set(re.findall(r"#include <([^>]+)>", SOURCES[name]))


def test_every_file_is_in_a_folder_that_has_a_place() -> None:
    assert {name.split("/")[0] for name in SOURCES} == set(BELOW)


@pytest.mark.parametrize("name", SOURCES)
def test_includes_point_one_way(name: str) -> None:
    folder = name.split("/", maxsplit=1)[0]
    assert own(name) <= set(SOURCES), "an include names the path below csrc"
    assert {include.split("/")[0] for include in own(name)} <= BELOW[folder] | {folder}
    if folder != "bindings":
        assert not any(include.startswith(("pybind11", "Python.h", "torch")) for include in others(name))
    if folder != "cuda":
        assert not any(include.startswith("cuda") for include in others(name))


def test_files_per_instruction_set_include_no_library_code() -> None:
    """The linker could choose a copy of an inline function that only newer CPUs can run."""
    assert len(PER_ISA) == 7
    for name in PER_ISA:
        seen, new = set(), {name}
        while new:
            seen |= new
            new = set().union(*(own(file) for file in new)) - seen
        assert set().union(*(others(file) for file in seen)) == {"cstdint"}, name
