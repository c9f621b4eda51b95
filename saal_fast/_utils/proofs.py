"""Fused code proves itself on a device, on small drawn inputs against plain PyTorch, before its results are used there.

What differs or raises is left out for the rest of the process: the plain code serves, and the log and `show_config` say why.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

_log = logging.getLogger(__name__)

Arguments: TypeAlias = "tuple[Any, ...]"
Draw: TypeAlias = "Callable[[torch.device], Iterable[Arguments]]"

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""The largest error of a result of a type, as a share of the result's largest number."""


@dataclass(frozen=True)
class Proof:
    """What a fused function is tried on.

    Attributes:
        name: of the function.
        draw: gives arguments on a device; the same for every call.
        fused: the function.
        plain: what it computes; it is given the arguments in float64, which a device rounds the least.
    """

    name: str
    draw: Draw
    fused: Callable[..., Any]
    plain: Callable[..., Any]


_found: dict[tuple[str, str], str] = {}  # by function and device: why it is left out, empty for proven
_lock = threading.RLock()


def proven(proof: Proof, device: torch.device) -> bool:
    """Whether a function may be used on a device. It is tried by the first call for the two, which other threads await.

    Raises:
        torch.OutOfMemoryError: the device has no room for the trial, which says nothing about the function.
    """
    key = proof.name, str(device)
    reason = _found.get(key)
    if reason is None:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return False  # a trial reads results, which a capture cannot; the next call tries
        with _lock:
            reason = _found.get(key)
            if reason is None:
                reason = _found[key] = _why_not(proof, device)
                if reason:
                    _log.warning("%s is left out on %s: %s; plain PyTorch serves", *key, reason)
    return not reason


def findings() -> dict[str, str]:
    """What has been tried so far, by "function on device"."""
    with _lock:
        return {f"{name} on {device}": f"left out: {why}" if why else "proven" for (name, device), why in _found.items()}


def _why_not(proof: Proof, device: torch.device) -> str:
    try:
        with torch._C.DisableTorchFunction(), torch.no_grad(), torch.autocast(device.type, enabled=False):
            for number, arguments in enumerate(proof.draw(device)):
                wide = [t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for t in arguments]
                wrong = _difference(_as_tuple(proof.fused(*arguments)), _as_tuple(proof.plain(*wide)))
                if wrong:
                    return f"{wrong} on its drawn input {number}"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of a compiler, a driver or the function itself: whatever it is, the plain code serves
        return f"it raised {type(error).__name__}: {error}"
    return ""


def _as_tuple(found: Any) -> Sequence[Tensor]:
    return found if isinstance(found, tuple) else (found,)


def _difference(got: Sequence[Tensor], expected: Sequence[Tensor]) -> str:
    if len(got) != len(expected):
        return f"it gave {len(got)} results for {len(expected)}"
    for one, other in zip(got, expected, strict=True):
        if one.shape != other.shape or one.is_floating_point() != other.is_floating_point():
            return f"it gave {one.dtype} {list(one.shape)} for {other.dtype} {list(other.shape)}"
        if not other.is_floating_point():
            if not torch.equal(one, other):
                return "it gave other whole numbers than plain PyTorch"
        elif other.numel():
            error = float((one.double() - other.double()).abs().amax())
            allowed = TOLERANCES[one.dtype] * float(other.double().abs().amax())
            if not error <= allowed:  # also NaN
                return f"it is off by {error:.2g}, more than {allowed:.2g},"
    return ""
