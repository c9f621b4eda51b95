"""The C++ core and the CUDA kernels, compiled for the host with sanitizers, against the reference.

No GPU is needed: `cuda_on_host.h` runs each CUDA thread as a host thread.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saal_fast.kmeans import draw_uniforms, kmeans_plusplus_reference

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
COMPILER = shutil.which("g++") or shutil.which("clang++")

pytestmark = [
    pytest.mark.slow,  # a sanitizer makes the compiler take minutes
    pytest.mark.skipif(COMPILER is None, reason="needs a host C++ compiler on the PATH"),
]


@dataclass(frozen=True)
class Case:
    x: np.ndarray
    k: int
    first: str
    uniforms: np.ndarray
    algorithm: str = "plain"
    left: np.ndarray | None = None
    weights: np.ndarray | None = None
    initial: tuple[int, ...] = ()
    refresh_every: int = -1

    def encoded(self) -> bytes:
        algorithm = ["auto", "plain", "rejection", "sorted"].index(self.algorithm)
        left = np.empty((len(self.x), 0), self.x.dtype) if self.left is None else self.left
        weights = np.empty(0) if self.weights is None else self.weights
        head = [self.x.dtype == np.float64, *self.x.shape, self.k, self.first == "argmax", algorithm, left.shape[1]]
        head += [self.refresh_every, len(self.uniforms), len(weights), len(self.initial)]
        parts = [np.array(head, np.int64), self.uniforms, weights, np.array(self.initial, np.int64), left, self.x]
        return b"".join(part.tobytes() for part in parts)

    def expected(self) -> tuple[list[int], float]:
        """The reference's rows, and the potential with them."""
        uniforms = draw_uniforms(20_000, 0).numpy()
        uniforms[: len(self.uniforms)] = self.uniforms
        points = self.x if self.left is None else (self.left, self.x)
        options = {"refresh_every": self.refresh_every} if self.algorithm == "rejection" else {}
        rows = kmeans_plusplus_reference(
            points,
            self.k,
            first=self.first,
            uniforms=uniforms,
            algorithm=self.algorithm,
            weights=self.weights,
            initial=list(self.initial),
            **options,
        ).tolist()
        x = self.x.astype(float)
        if self.left is not None:
            x = (self.left.astype(float)[:, :, None] * x[:, None, :]).reshape(len(x), -1)
        squared = np.full(len(x), np.inf)
        for row in [*rows, *self.initial]:
            squared = np.minimum(squared, ((x - x[row]) ** 2).sum(1))
        return rows, float(squared @ (np.ones(len(x)) if self.weights is None else self.weights))


def case(
    n: int,
    dim: int,
    k: int,
    first: str = "random",
    *,
    dtype: str = "float32",
    distinct: int = 0,
    left: int = 0,
    weighted: bool = False,
    initial: int = 0,
    offset: float = 0.0,
    **options: Any,
) -> Case:
    generator = np.random.default_rng([n, dim, k, distinct])
    x = (generator.standard_normal((n, dim)) + offset).astype(dtype)
    if distinct:
        x = x[generator.integers(0, distinct, n)]
    uniforms = generator.random(k)
    return Case(
        x,
        k,
        first,
        uniforms,
        left=generator.standard_normal((n, left)).astype(dtype) if left else None,
        weights=generator.random(n) * generator.integers(0, 4, n) if weighted else None,
        initial=tuple(generator.permutation(n)[:initial].tolist()),
        **options,
    )


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
ALGORITHMS = [
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
GIVEN = [
    case(40, 5, 12, weighted=True),
    case(300, 3, 20, "argmax", weighted=True, dtype="float64", algorithm="rejection"),
    case(300, 3, 20, weighted=True, left=4, algorithm="rejection"),
    case(280, 6, 9, initial=70, algorithm="rejection"),
    case(30, 1, 9, initial=3, weighted=True),
    case(30, 1, 9, initial=1, weighted=True, algorithm="rejection", refresh_every=2),
    case(90, 18, 30, initial=2, left=3, algorithm="rejection", refresh_every=5, dtype="float64"),
    case(65, 17, 40, offset=1e3, algorithm="rejection", refresh_every=20),
    case(40, 3, 20, distinct=6, initial=2, weighted=True, algorithm="rejection"),
]
GROUPS = [case(66_000, 1, 2), case(66_000, 1, 2, "argmax", dtype="float64")]  # more than one group of blocks


def build(folder: Path, sanitizer: str, candidates: int = 8) -> Path:
    """The checking program with a sanitizer; skips where the toolchain lacks it."""
    program = folder / "check"
    flags = ["-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-pthread"]
    flags += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", f"-DSAAL_CANDIDATES={candidates}"]
    probe = folder / "probe.cpp"
    probe.write_text("#include <barrier>\nint main() { std::barrier<> b(1); b.arrive_and_wait(); }\n")
    can = subprocess.run([COMPILER, *flags, probe, "-o", program], capture_output=True, text=True, check=False)
    if can.returncode != 0 or subprocess.run([program], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{COMPILER} builds nothing that runs with C++20's <barrier> and -fsanitize={sanitizer}")
    sources = [HERE / "kmeans_check.cpp", *sorted(CSRC.glob("kmeans/*.cpp"))]
    built = subprocess.run(
        [COMPILER, *flags, f"-I{CSRC}", "-DSAAL_ISA=baseline", *sources, "-o", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return program


def run(program: Path, mode: str, cases: list[Case], *without: str) -> subprocess.CompletedProcess[bytes]:
    """Runs cases; `without`: the file and the line of a barrier to leave out."""
    data = b"".join(c.encoded() for c in cases)
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1"}
    command = [program, mode, *without]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=600, env=environment)


def check(program: Path, mode: str, cases: list[Case]) -> None:
    ran = run(program, mode, cases)
    assert ran.returncode == 0, ran.stderr.decode()
    out = ran.stdout
    for c in cases:
        rows, potential = c.expected()
        assert np.frombuffer(out[: 8 * c.k], np.int64).tolist() == rows, c
        assert np.frombuffer(out[8 * c.k :][:8])[0] == pytest.approx(potential, rel=1e-6, abs=1e-6), c
        out = out[8 * c.k + 8 :]
    assert not out


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("addresses"), "address,undefined")


@pytest.fixture(scope="module")
def races(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("races"), "thread")


def test_core_under_address_and_undefined_behaviour_sanitizers(addresses: Path) -> None:
    check(addresses, "core", SMALL + THREADED + GROUPS + ALGORITHMS + GIVEN + WIDE)


def test_core_under_the_thread_sanitizer(races: Path) -> None:
    check(races, "core", SMALL + THREADED + ALGORITHMS + GIVEN + WIDE)


# ---- the kernels

KERNELS = [c for c in ALGORITHMS if c.algorithm != "sorted"]
FEW = [
    case(19, 17, 3),
    case(300, 1, 4, "argmax", dtype="float64", distinct=2),
    case(70, 18, 12, algorithm="rejection", refresh_every=3, weighted=True),
    case(66, 3, 9, algorithm="rejection", left=2, initial=2, dtype="float64"),
]
RACES = [
    case(19, 17, 2),
    case(257, 1, 2, dtype="float64"),
    case(70, 18, 6, weighted=True, algorithm="rejection", refresh_every=3),
    case(80, 3, 4, initial=70, left=2, algorithm="rejection"),  # two tiles of centres
]


def test_kernels_on_a_few_shapes_under_address_and_undefined_behaviour_sanitizers(addresses: Path) -> None:
    check(addresses, "kernels", FEW)


def test_kernels_under_address_and_undefined_behaviour_sanitizers(addresses: Path) -> None:
    check(addresses, "kernels", SMALL + GROUPS + KERNELS + GIVEN)


def test_kernels_with_as_many_candidates_as_on_a_device(tmp_path: Path) -> None:
    check(build(tmp_path, "address,undefined", 64), "kernels", [*FEW, case(400, 20, 90, algorithm="rejection")])


def test_kernels_under_the_thread_sanitizer(races: Path) -> None:
    check(races, "kernels", RACES)


BARRIERS = [
    (path.name, number)
    for path in sorted((CSRC / "cuda").glob("*.cuh"))
    for number, line in enumerate(path.read_text().splitlines(), 1)
    if "__syncthreads();" in line
]


@pytest.mark.parametrize(("name", "line"), BARRIERS)
def test_control_the_thread_sanitizer_finds_each_removed_barrier(races: Path, name: str, line: int) -> None:
    ran = run(races, "kernels", RACES, name, str(line))
    assert ran.returncode != 0
    assert b"data race" in ran.stderr


def test_there_are_barriers_to_remove() -> None:
    assert len(BARRIERS) > 10


@pytest.mark.parametrize("mode", ["core", "kernels"])
@pytest.mark.parametrize("algorithm", ["plain", "rejection"])
def test_rows_that_are_not_finite_are_named(addresses: Path, mode: str, algorithm: str) -> None:
    x = np.ones((40, 3))
    x[17, 2], x[30, 0] = np.nan, np.inf
    for left in (None, np.ones((40, 2))):
        ran = run(addresses, mode, [Case(x, 2, "random", np.zeros(2), algorithm, left)])
        assert ran.returncode == 3
        assert b"NaN or inf first in row 17" in ran.stderr
    ran = run(addresses, mode, [Case(np.array([[1e200], [1.0]]), 2, "random", np.zeros(2), algorithm)])
    assert (ran.returncode, b"overflow; scale x down" in ran.stderr) == (3, True)


def test_the_sanitized_program_reads_what_the_tests_write(addresses: Path) -> None:
    broken = Case(torch.zeros(3, 2).numpy(), 2, "random", np.zeros(2))
    ran = subprocess.run([addresses, "core"], input=broken.encoded()[:-4], capture_output=True, check=False)
    assert ran.returncode == 2
