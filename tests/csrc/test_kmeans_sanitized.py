"""The C++ core and the CUDA kernels, compiled for the host with sanitizers, against the reference.

No GPU is needed: `cuda_on_host.h` runs each CUDA thread as a host thread.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from saal_fast.kmeans import draw_uniforms, kmeans_plusplus_reference

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
COMPILER = shutil.which("g++") or shutil.which("clang++")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a host C++ compiler on the PATH")


@dataclass(frozen=True)
class Case:
    x: np.ndarray
    k: int
    first: str
    uniforms: np.ndarray
    algorithm: str = "plain"
    left: np.ndarray | None = None

    def encoded(self) -> bytes:
        way = ["auto", "plain", "rejection", "sorted"].index(self.algorithm)
        left = np.empty((len(self.x), 0), self.x.dtype) if self.left is None else self.left
        head = [self.x.dtype == np.float64, *self.x.shape, self.k, self.first == "argmax", way, left.shape[1]]
        return np.array(head, np.int64).tobytes() + self.uniforms.tobytes() + left.tobytes() + self.x.tobytes()

    def expected(self) -> list[int]:
        uniforms = draw_uniforms(20_000, 0).numpy()
        uniforms[: self.k] = self.uniforms
        points = self.x if self.left is None else (self.left, self.x)
        return kmeans_plusplus_reference(
            points, self.k, first=self.first, uniforms=uniforms, algorithm=self.algorithm
        ).tolist()


def case(
    n: int,
    dim: int,
    k: int,
    first: str = "random",
    *,
    dtype: str = "float32",
    distinct: int = 0,
    algorithm: str = "plain",
    left: int = 0,
) -> Case:
    generator = np.random.default_rng([n, dim, k, distinct])
    x = generator.standard_normal((n, dim)).astype(dtype)
    if distinct:
        x = x[generator.integers(0, distinct, n)]
    uniforms = generator.random(k)
    return Case(x, k, first, uniforms, algorithm, generator.standard_normal((n, left)).astype(dtype) if left else None)


# Odd on purpose: part of a lane, of a team, of a block; one more than a block; one number a row; duplicates.
SMALL = [
    case(1, 1, 1),
    case(1, 5, 1, "argmax"),
    case(7, 3, 4, dtype="float64"),
    case(30, 16, 3, "argmax"),
    case(19, 17, 3),
    case(257, 1, 3, dtype="float64"),
    case(258, 33, 2, "argmax", dtype="float64"),
    case(12, 2, 12, distinct=4),
    case(9, 4, 5, "argmax", distinct=1),
]
THREADED = [case(1000, 200, 5), case(300_000, 1, 3, "argmax", dtype="float64")]  # large enough for several threads
WAYS = [
    case(1, 1, 1, algorithm="rejection"),
    case(7, 3, 7, algorithm="rejection", dtype="float64"),
    case(258, 33, 50, "argmax", algorithm="rejection", dtype="float64"),
    case(900, 70, 120, algorithm="rejection", distinct=200),
    case(12, 2, 12, algorithm="rejection", distinct=4),
    case(700, 1, 40, algorithm="rejection"),
    case(300, 17, 60, algorithm="rejection", left=5),
    case(257, 9, 20, left=3, dtype="float64"),
    case(257, 1, 257, algorithm="sorted"),
    case(3000, 1, 90, "argmax", algorithm="sorted", dtype="float64", distinct=60),
]
WIDE = [case(3000, 200, 80, algorithm="rejection"), case(2000, 150, 60, algorithm="rejection", left=20)]  # several threads
GROUPS = [case(66_000, 1, 2), case(66_000, 1, 2, "argmax", dtype="float64")]  # more than one group of blocks


def build(folder: Path, sanitizer: str, *extra: str) -> Path:
    """The checking program with a sanitizer; skips where the toolchain lacks it."""
    program = folder / "check"
    flags = ["-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-pthread"]
    flags += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", *extra]
    probe = folder / "probe.cpp"
    probe.write_text("#include <barrier>\nint main() { std::barrier<> b(1); b.arrive_and_wait(); }\n")
    can = subprocess.run([COMPILER, *flags, probe, "-o", program], capture_output=True, text=True, check=False)
    if can.returncode != 0 or subprocess.run([program], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{COMPILER} builds nothing that runs with C++20's <barrier> and -fsanitize={sanitizer}")
    sources = [HERE / "kmeans_check.cpp", *sorted(CSRC.glob("kmeans*.cpp"))]
    built = subprocess.run(
        [COMPILER, *flags, f"-I{CSRC}", "-DSAAL_ISA=baseline", *sources, "-o", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return program


def run(program: Path, mode: str, cases: list[Case]) -> subprocess.CompletedProcess[bytes]:
    data = b"".join(c.encoded() for c in cases)
    return subprocess.run([program, mode], input=data, capture_output=True, check=False, timeout=600)


def check(program: Path, mode: str, cases: list[Case]) -> None:
    ran = run(program, mode, cases)
    assert ran.returncode == 0, ran.stderr.decode()
    got = np.frombuffer(ran.stdout, np.int64).tolist()
    assert got == [row for c in cases for row in c.expected()]


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("addresses"), "address,undefined")


@pytest.fixture(scope="module")
def races(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("races"), "thread")


def test_core_under_address_and_undefined_behaviour_sanitizers(addresses: Path) -> None:
    check(addresses, "core", SMALL + THREADED + GROUPS + WAYS + WIDE)


@pytest.mark.slow
def test_kernels_under_address_and_undefined_behaviour_sanitizers(addresses: Path) -> None:
    check(addresses, "kernels", SMALL + GROUPS)


def test_kernels_on_a_few_shapes_under_address_and_undefined_behaviour_sanitizers(addresses: Path) -> None:
    check(addresses, "kernels", [case(19, 17, 3), case(300, 1, 4, "argmax", dtype="float64", distinct=2)])


def test_core_under_the_thread_sanitizer(races: Path) -> None:
    check(races, "core", SMALL + THREADED + WAYS + WIDE)


@pytest.mark.slow
def test_kernels_under_the_thread_sanitizer(races: Path) -> None:
    check(races, "kernels", [case(19, 17, 2), case(257, 1, 2, dtype="float64")])


@pytest.mark.slow
def test_control_the_thread_sanitizer_finds_removed_barriers(tmp_path: Path) -> None:
    program = build(tmp_path, "thread", "-DSAAL_WITHOUT_SYNCTHREADS")
    ran = run(program, "kernels", [case(257, 1, 2)])
    assert ran.returncode != 0
    assert b"data race" in ran.stderr


def test_the_sanitized_program_reads_what_the_tests_write(addresses: Path) -> None:
    broken = Case(torch.zeros(3, 2).numpy(), 2, "random", np.zeros(2))
    ran = subprocess.run([addresses, "core"], input=broken.encoded()[:-4], capture_output=True, check=False)
    assert ran.returncode == 2
