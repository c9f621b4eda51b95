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


NEEDS_NVCC = pytest.mark.skipif(NVCC is None, reason="needs nvcc on the PATH")
FLAGS = ["-std=c++17", "-fmad=false", "--expt-relaxed-constexpr", f"-I{ROOT / 'csrc'}"]  # as in CMakeLists.txt

BUDGET_RELEASE = "13.0"
"""Of nvcc, by which `BUDGET` was taken: others may count otherwise."""

# A kernel's most registers a thread and bytes of shared memory a thread block, on any of GENERATIONS.
BUDGET = {
    "norms_kernel": (40, 0),
    "block_sums_kernel": (40, 0),
    "first_kernel": (40, 2100),
    "fold_kernel": (80, 2048),
    "sum_kernel": (40, 0),
    "select_kernel": (40, 2100),
    "draw_kernel": (40, 2100),
    "compare_kernel": (128, 128),
    "scan_kernel": (72, 64),
    "normalized_norms_kernel": (64, 0),
    "update_block_kernel": (128, 25_600),
}


@pytest.fixture(scope="module", params=[pytest.param(g, marks=pytest.mark.slow) for g in GENERATIONS])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of ptxas on the kernels, compiled for one generation with warnings as errors."""
    if f"sm_{request.param}" not in built_architectures():
        pytest.skip(f"this nvcc has no sm_{request.param}")
    targets = [f"-gencode=arch=compute_{request.param},code=sm_{request.param}"]
    said = ""
    for source in SOURCES:
        command = [NVCC, *FLAGS, *targets, "-Xptxas", "-v,-warn-spills", "-Werror", "all-warnings"]
        command += ["-Xcompiler", "-Wall,-Wextra,-fPIC", "-c", source, "-o", tmp_path_factory.mktemp("nvcc") / "kernels.o"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        said += ran.stdout + ran.stderr
    return said


def kernels_in(compiled: str) -> dict[str, tuple[int, int]]:
    """Registers a thread and bytes of static shared memory of each kernel, the most of its instances."""
    found: dict[str, tuple[int, int]] = {}
    used = re.findall(r"entry function '\w*?\d\d([a-z_]+_kernel)I.*?Used (\d+) registers(.*?)\n", compiled, re.DOTALL)
    for name, registers, rest in used:
        shared = re.search(r"(\d+) bytes smem", rest)
        most = found.get(name, (0, 0))
        found[name] = max(most[0], int(registers)), max(most[1], int(shared[1]) if shared else 0)
    return found


@NEEDS_NVCC
def test_kernels_compile_without_warnings_or_spills_within_the_hardwares_limits(compiled: str) -> None:
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", compiled)
    kernels = re.findall(r"Compiling entry function '\w+' for 'sm_\d+'", compiled)
    assert len(spills) >= len(kernels) > 0
    assert set(spills) == {("0", "0", "0")}, compiled
    used = kernels_in(compiled)
    assert used.keys() == BUDGET.keys()
    assert all(registers <= 255 and shared <= 48 * 1024 for registers, shared in used.values()), used


@NEEDS_NVCC
def test_kernels_keep_to_their_budget(compiled: str) -> None:
    version = subprocess.run([NVCC, "--version"], capture_output=True, text=True, check=True).stdout
    if f"release {BUDGET_RELEASE}," not in version:
        pytest.skip(f"the budget is that of nvcc {BUDGET_RELEASE}")
    over = {n: u for n, u in kernels_in(compiled).items() if u[0] > BUDGET[n][0] or u[1] > BUDGET[n][1]}
    assert not over, over


@NEEDS_NVCC
@pytest.mark.slow
def test_no_product_in_double_is_fused_into_an_addition(tmp_path: Path) -> None:
    # The rows are those of the CPU and of the reference only so.
    def fused(*flags: str) -> int:
        code = tmp_path / "kernels.ptx"
        command = [NVCC, *flags, "-arch=compute_90", "--ptx", ROOT / "csrc" / "cuda" / "kmeans.cu", "-o", code]
        subprocess.run(command, capture_output=True, check=True)
        text = code.read_text()
        assert len(re.findall(r"\bfma\.rn\.f32", text)) > 16  # the products of bounds are meant to be
        loose = re.findall(r"\b(?:add|sub|mul)\.f64", text)  # without .rn, what comes next may still fuse them
        return len(re.findall(r"\bfma\.\w+\.f64", text)) + len(loose)

    assert fused(*FLAGS) == 0
    assert fused(*(f for f in FLAGS if f != "-fmad=false")) > 0  # the control


@NEEDS_NVCC
def test_the_build_has_these_flags() -> None:
    listed = (ROOT / "CMakeLists.txt").read_text()
    assert all(flag in listed for flag in FLAGS[1:3])


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
