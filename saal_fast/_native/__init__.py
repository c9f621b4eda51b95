"""The compiled modules, loaded when they are first needed."""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType

import torch


@functools.cache
def core() -> ModuleType:
    """The C++ core, `saal_fast._native._core`.

    Raises:
        ImportError: It isn't built, or doesn't load. There is no fallback: a hundred times slower is a bug.
    """
    try:
        from saal_fast._native import _core  # noqa: PLC0415 - loaded when first needed
    except ImportError as error:
        raise ImportError(
            f"saal_fast's C++ core doesn't load ({error}). Build it from a checkout with `pip install .`, or "
            "`pip install -e .` to import the package from the checkout itself; both need a C++17 compiler."
        ) from error
    _core.use_torch_threads(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    return _core


@functools.cache
def _load_cuda() -> tuple[ModuleType | None, str]:
    """The CUDA module, or why it isn't there."""
    built: str = core().cuda
    if not built.startswith("built"):
        return None, built
    try:
        from saal_fast._native import _cuda  # noqa: PLC0415 - loaded when first needed
    except ImportError as error:
        return None, f"built, but doesn't load: {error}"
    return _cuda, ""


def cuda() -> ModuleType | None:
    """The CUDA module, `saal_fast._native._cuda`; None where it wasn't built or doesn't load."""
    return _load_cuda()[0]


def why_no_cuda() -> str:
    """Why `cuda()` is None; empty where it isn't."""
    return _load_cuda()[1]
