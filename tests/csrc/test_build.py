"""What the build promises: kernels that compile cleanly for every GPU generation, and no need of nvcc."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "csrc").rglob("*.cu"))
NVCC = shutil.which("nvcc")
GENERATIONS = [80, 90, 100]


def built_architectures() -> set[str]:
    assert NVCC is not None
    listed = subprocess.run([NVCC, "--list-gpu-code"], capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def test_there_are_cuda_sources() -> None:
    assert SOURCES


@pytest.mark.skipif(NVCC is None, reason="needs nvcc on the PATH")
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_kernels_compile_without_warnings_or_spills(source: Path, tmp_path: Path) -> None:
    missing = {f"sm_{generation}" for generation in GENERATIONS} - built_architectures()
    if missing:
        pytest.skip(f"this nvcc has no {', '.join(sorted(missing))}")
    targets = [f"-gencode=arch=compute_{g},code=sm_{g}" for g in GENERATIONS]
    command = [NVCC, "-std=c++17", "--expt-relaxed-constexpr", *targets, "-Xptxas", "-v,-warn-spills"]
    command += ["-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-fPIC"]
    command += ["-c", source, "-o", tmp_path / "kernels.o"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    report = compiled.stdout + compiled.stderr
    assert compiled.returncode == 0, report
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    kernels = re.findall(r"Compiling entry function '(\w+)' for '(sm_\d+)'", report)
    assert {architecture for _, architecture in kernels} == {f"sm_{g}" for g in GENERATIONS}
    assert len(spills) >= len(kernels)
    assert {(stores, loads) for _, stores, loads in spills} == {("0", "0")}, report


@pytest.fixture
def configure(tmp_path: Path):
    """Configures the project into a folder of its own, with `programs` first on the PATH."""
    beside = str(Path(sys.executable).parent)
    cmake = shutil.which("cmake", path=os.pathsep.join([beside, os.environ["PATH"]]))
    if cmake is None or importlib.util.find_spec("pybind11") is None:
        pytest.skip("needs cmake and pybind11")
    pybind11 = subprocess.run([sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, check=True)

    def run(programs: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = [cmake, "-S", ROOT, "-B", tmp_path / "build", f"-Dpybind11_DIR={pybind11.stdout.strip()}"]
        command += [f"-DPython_EXECUTABLE={sys.executable}", *options]
        path = os.pathsep.join([str(programs), beside, os.environ["PATH"]])
        environment = os.environ | {"PATH": path}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    return run


@pytest.fixture
def broken_nvcc(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nvcc"
    program.write_text("#!/bin/sh\necho 'nvcc: broken' >&2\nexit 1\n")
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize("how", ["PATH", "CUDACXX"])
def test_a_broken_nvcc_is_reported_and_left_out(
    how: str, configure, broken_nvcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDACXX", raising=False)
    if how == "CUDACXX":
        monkeypatch.setenv("CUDACXX", str(broken_nvcc / "nvcc"))
    configured = configure(broken_nvcc if how == "PATH" else tmp_path)
    assert configured.returncode == 0, configured.stdout + configured.stderr
    assert "saal_fast: CUDA module not built: no working nvcc was found" in configured.stdout
    header = (tmp_path / "build" / "generated" / "build_info.h").read_text()
    assert '#define SAAL_BUILD_CUDA "not built: no working nvcc was found"' in header


def test_insisting_on_cuda_with_a_broken_nvcc_stops_the_build(configure, broken_nvcc: Path) -> None:
    configured = configure(broken_nvcc, "-DSAAL_FAST_CUDA=ON")
    assert configured.returncode != 0
    assert "SAAL_FAST_CUDA=ON, but no working nvcc was found" in configured.stderr


def test_cuda_can_be_declined(configure, tmp_path: Path) -> None:
    configured = configure(tmp_path, "-DSAAL_FAST_CUDA=OFF")
    assert configured.returncode == 0, configured.stdout + configured.stderr
    assert "saal_fast: CUDA module not built: SAAL_FAST_CUDA=OFF" in configured.stdout
