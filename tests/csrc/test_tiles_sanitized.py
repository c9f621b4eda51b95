"""Tiles and minimal filtering, compiled with sanitizers, against plain loops over odd shapes in memory of the right size."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
COMPILER = shutil.which("g++") or shutil.which("clang++")

pytestmark = [
    pytest.mark.slow,  # a sanitizer makes the compiler take minutes
    pytest.mark.skipif(COMPILER is None, reason="needs a host C++ compiler on the PATH"),
]


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_tiles_under_sanitizers(sanitizer: str, tmp_path: Path) -> None:
    program = tmp_path / "check"
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    flags += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() {}\n")
    can = subprocess.run([COMPILER, *flags, probe, "-o", program], capture_output=True, text=True, check=False)
    if can.returncode != 0 or subprocess.run([program], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{COMPILER} builds nothing that runs with -fsanitize={sanitizer}")
    names = ["conv/tiles", "conv/tiles_kernels", "conv/winograd", "conv/winograd_kernels", "support/workers"]
    sources = [HERE / "tiles_check.cpp", *(CSRC / f"{name}.cpp" for name in names)]
    built = subprocess.run(
        [COMPILER, *flags, f"-I{CSRC}", "-DSAAL_ISA=baseline", *sources, "-o", program, "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([program], capture_output=True, text=True, check=False, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
