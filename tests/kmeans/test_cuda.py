"""Tensors on CUDA, and what is said without a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from saal_fast import _native
from saal_fast.kmeans import draw_uniforms, kmeans_plusplus, kmeans_plusplus_reference

WHOLE = np.random.default_rng(8).integers(0, 100, (40, 6))
EXPECTED = kmeans_plusplus_reference(WHOLE.astype(np.float64), 9, uniforms=draw_uniforms(9, 11)).tolist()

needs_no_device = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")


def cuda_module() -> Any:
    module = _native.cuda()
    if module is None:
        pytest.skip(f"the CUDA module is {_native.why_no_cuda()}")
    return module


@needs_no_device
def test_the_cuda_module_says_that_there_is_no_device() -> None:
    cuda = cuda_module()
    count, why = cuda.devices()
    assert count == 0
    assert why
    shape = {"dtype": "float32", "rows": 1, "dim": 1, "k": 1}
    where = {"x": 0, "row_stride": 1, "device": 0, "stream": 0, "workspace": 0}
    for algorithm in ("plain", "rejection"):
        with pytest.raises(RuntimeError, match="no CUDA device: "):
            cuda.kmeans_plusplus(**shape, **where, first="random", key=0, algorithm=algorithm)
    with pytest.raises(ValueError, match="expected dtype 'float32' or 'float64', got 'int8'"):
        cuda.workspace_bytes(**(shape | {"dtype": "int8"}))


def test_the_cuda_workspace_is_linear_in_rows_and_in_what_is_chosen() -> None:
    cuda = cuda_module()

    def size(rows: int, k: int = 10, **options: Any) -> int:
        return cuda.workspace_bytes(dtype="float32", rows=rows, dim=50, k=k, **options)

    few = size(1, 1)
    assert few < 64_000  # the candidates' mutual distances
    assert size(1_000_000) - few < 1_000_000 * 12.1
    assert size(1_000_000, weighted=True) - size(1_000_000) == 8_000_000
    assert size(1_000_000, left_dim=5) - size(1_000_000) == 8_000_000
    assert size(1000, 900) - size(1000, 100) == 800 * 8 == size(1000, 100, initial=800) - size(1000, 100)


@pytest.fixture
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    cuda_module()
    return torch.device("cuda", torch.cuda.current_device())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("first", ["random", "argmax"])
@pytest.mark.parametrize("algorithm", ["plain", "rejection"])
@pytest.mark.parametrize(("n", "dim", "k"), [(1, 1, 1), (7, 3, 7), (300, 17, 40), (70_001, 1, 90), (5000, 64, 200)])
def test_cuda_chooses_the_references_rows(
    device: torch.device, *, n: int, dim: int, k: int, first: str, algorithm: str, dtype: torch.dtype
) -> None:
    x = torch.randn(n, dim, generator=torch.Generator().manual_seed(n)).to(dtype)
    expected = kmeans_plusplus_reference(x, k, first=first, algorithm=algorithm, uniforms=draw_uniforms(20_000, 3))
    rows = kmeans_plusplus(x.to(device), k, first=first, algorithm=algorithm, seed=3)
    assert rows.device.type == "cpu"
    assert rows.equal(expected)


@pytest.mark.gpu
@pytest.mark.parametrize("algorithm", ["auto", "plain", "rejection"])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"weights": torch.arange(3000) % 7}, {"initial": list(range(0, 3000, 9))}, {"first": "argmax"}],
    ids=["no options", "weights", "initial rows", "argmax"],
)
def test_cuda_chooses_the_cpus_rows(device: torch.device, *, paired: bool, algorithm: str, options: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    spread, tight = torch.randn(3000, 40, generator=generator), torch.randn(30, 40, generator=generator)
    clusters = tight[torch.arange(3000) % 30] + 1e-3 * torch.randn(3000, 40, generator=generator) + 50.0
    for x in (spread, clusters):
        points, there = x, x.to(device)
        if paired:
            points, there = (spread[:, :5], x), (spread[:, :5].to(device), x.to(device))
        for seed in range(3):
            rows, info = kmeans_plusplus(points, 150, seed=seed, algorithm=algorithm, return_info=True, **options)
            got, counted = kmeans_plusplus(there, 150, seed=seed, algorithm=algorithm, return_info=True, **options)
            assert got.equal(rows)
            assert counted.potential == info.potential
            assert counted.acceptance == info.acceptance
            assert counted.algorithm == info.algorithm


@pytest.mark.gpu
def test_sorted_numbers_are_drawn_on_the_cpu(device: torch.device) -> None:
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    assert kmeans_plusplus(x.to(device), 100, seed=0).equal(kmeans_plusplus(x, 100, seed=0))


@pytest.mark.gpu
def test_cuda_with_duplicates_strides_and_another_stream(device: torch.device) -> None:
    x = torch.from_numpy(WHOLE).float()[torch.arange(40) % 5]
    expected = kmeans_plusplus(x, 40, seed=1)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        there = x.t().contiguous().to(device).t()
        assert kmeans_plusplus(there, 40, seed=1).equal(expected)
        padded = torch.full((40, 11), torch.nan, device=device)
        padded[:, 3:9] = there
        assert kmeans_plusplus(padded[:, 3:9], 40, seed=1).equal(expected)


@pytest.mark.gpu
def test_cuda_names_the_first_row_that_is_not_finite(device: torch.device) -> None:
    x = torch.ones(600, 20, device=device)
    x[377, 19] = torch.nan
    with pytest.raises(ValueError, match="got NaN or inf first in row 377"):
        kmeans_plusplus(x, 3, seed=0)


@pytest.mark.gpu
def test_without_the_module_a_cuda_tensor_is_copied_and_the_log_says_so(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_native, "cuda", lambda: None)
    x = torch.from_numpy(WHOLE).double()
    assert kmeans_plusplus(x.to(device), 9, seed=11).tolist() == EXPECTED
    assert "copies x to the CPU" in caplog.text
