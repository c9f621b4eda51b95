"""Functions that run as they are, also where `torch.compile` compiles their caller."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def outside_compile(function: Function) -> Function:
    """`torch.compiler.disable`, which is not imported before something compiles: it takes a second."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        return _disabled(function)(*args, **kwargs)

    call._torchdynamo_disable = True  # type: ignore[attr-defined]  # the mark by which it knows where to break a graph
    return call  # type: ignore[return-value]


def _disabled(function: Callable[..., Any]) -> Callable[..., Any]:
    if function not in _found:
        _found[function] = torch.compiler.disable(function)  # type: ignore[no-untyped-call] # torch's own
    return _found[function]


_found: dict[Callable[..., Any], Callable[..., Any]] = {}
