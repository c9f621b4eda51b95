"""The tiles' C++, compiled with sanitizers, against plain loops over odd shapes in memory of exactly the right size."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
COMPILER = shutil.which("g++") or shutil.which("clang++")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a host C++ compiler on the PATH")


@pytest.mark.parametrize("vectors", ["registers", "plain arrays"])
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_tiles_under_sanitizers(sanitizer: str, vectors: str, tmp_path: Path) -> None:
    if sanitizer == "thread" and vectors == "plain arrays":
        pytest.skip("threads don't depend on how vectors are written")
    program = tmp_path / "check"
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    flags += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() {}\n")
    can = subprocess.run([COMPILER, *flags, probe, "-o", program], capture_output=True, text=True, check=False)
    if can.returncode != 0 or subprocess.run([program], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{COMPILER} builds nothing that runs with -fsanitize={sanitizer}")
    flags += ["-DSAAL_PLAIN_VECTORS"] if vectors == "plain arrays" else []
    names = ["tiles.cpp", "tiles_kernels.cpp", "winograd.cpp", "winograd_kernels.cpp", "workers.cpp"]
    sources = [HERE / "tiles_check.cpp", *(CSRC / name for name in names)]
    built = subprocess.run(
        [COMPILER, *flags, f"-I{CSRC}", "-DSAAL_ISA=baseline", *sources, "-o", program, "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([program], capture_output=True, text=True, check=False, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
