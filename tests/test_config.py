from __future__ import annotations

import dataclasses
import platform
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import saal_fast
import saal_fast.kmeans
from saal_fast import _native, engines
from saal_fast._config import Config, show_config
from saal_fast._native import _core


@pytest.fixture
def fresh_caches() -> Iterator[None]:
    """The loaders remember what they found; forget it before and after."""
    _native.core.cache_clear()
    _native._load_cuda.cache_clear()
    yield
    _native.core.cache_clear()
    _native._load_cuda.cache_clear()


def hide(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `from saal_fast._native import <module>` fail as if it weren't built."""
    monkeypatch.setitem(sys.modules, f"saal_fast._native.{module}", None)
    monkeypatch.delattr(_native, module, raising=False)


def test_versions_are_those_of_the_imported_packages() -> None:
    versions = show_config().versions
    assert versions["python"] == platform.python_version()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert versions["numpy"] == np.__version__
    assert set(versions) == {"saal_fast", "python", "torch", "numpy", "triton", "torchvision"}


def test_what_was_built_is_what_the_core_says() -> None:
    built = show_config().built
    assert _core.compiler in built["C++ core"]
    assert "-ffp-contract=off" in built["C++ core"]
    assert _core.built_isas()[0] == "baseline"
    assert set(_core.usable_isas()) <= set(_core.built_isas())
    for isa in _core.built_isas():
        assert isa in built["instruction sets"]
    assert built["instruction sets"].endswith(f"{_core.usable_isas()[-1]} runs here")
    assert built["CUDA module"] == _core.cuda
    assert _core.cuda.startswith(("built: nvcc ", "not built: "))


def test_the_cuda_module_is_loaded_or_there_is_a_reason() -> None:
    here = show_config().built["CUDA module here"]
    if _native.cuda() is None:
        assert here == _native.why_no_cuda() != ""
    else:
        assert _native.why_no_cuda() == ""
        assert here.startswith("loads, no device: " if not torch.cuda.is_available() else "loads, ")


def test_engines_and_devices() -> None:
    config = show_config()
    assert config.engines == tuple(engines.NAMES)
    assert {"ghost", "vmap", "reference"} <= set(config.engines)
    assert config.devices["cpu"].startswith(f"{torch.get_num_threads()} threads")
    assert len(config.devices) == 1 + (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_the_table_holds_every_finding() -> None:
    config = Config({"torch": "2.6"}, {"C++ core": "GNU 12"}, ("ghost",), {"cpu": "2 threads"})
    assert str(config).splitlines() == [
        "versions",
        "  torch     2.6",
        "built",
        "  C++ core  GNU 12",
        "engines",
        "  ghost",
        "devices",
        "  cpu       2 threads",
    ]


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        show_config().engines = ()  # type: ignore[misc]


def test_python_m_saal_fast_prints_it() -> None:
    printed = subprocess.run([sys.executable, "-m", "saal_fast"], capture_output=True, text=True, check=True)
    assert printed.stdout == f"{show_config()}\n"


@pytest.mark.usefixtures("fresh_caches")
def test_a_missing_core_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hide("_core", monkeypatch)
    with pytest.raises(ImportError, match=r"C\+\+ core doesn't load .* `pip install \.`"):
        saal_fast.kmeans.kmeans_plusplus(torch.zeros(3), 1)
    assert "pip install" in show_config().built["C++ core"]


@pytest.mark.usefixtures("fresh_caches")
def test_a_cuda_module_that_does_not_load_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    hide("_cuda", monkeypatch)
    monkeypatch.setattr(_core, "cuda", "built: nvcc 13.0 for 80-real")
    assert _native.cuda() is None
    assert _native.why_no_cuda().startswith("built, but doesn't load: ")
    assert show_config().built["CUDA module here"] == _native.why_no_cuda()


@pytest.mark.usefixtures("fresh_caches")
def test_a_cuda_module_that_was_not_built_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "cuda", "not built: no working nvcc was found")
    assert _native.cuda() is None
    assert show_config().built["CUDA module here"] == "not built: no working nvcc was found"
