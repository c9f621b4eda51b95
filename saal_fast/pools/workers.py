"""Errors of a `DataLoader`'s worker processes, in the class that they had there."""

from __future__ import annotations

from typing import Any

from torch._utils import ExceptionWrapper


def raise_as_in_worker(error: Exception) -> None:
    """Raises an error of the class that a worker process raised, where torch made another one of it.

    It does so with a class that cannot be made from a message alone.
    """
    kind = _raised(error)
    if kind is None or isinstance(error, kind) or not issubclass(kind, Exception):
        return
    raise _made(kind, str(error), vars(error)) from error


def _made(kind: type[Exception], message: str, attributes: dict[str, Any]) -> Exception:
    """An error of a class, or rather of one derived from it that needs no more than a message."""

    def init(self: Exception, *args: Any) -> None:
        """Takes any arguments."""

    bare: type[Exception] = type(
        kind.__name__,
        (kind,),
        {"__init__": init, "__str__": lambda _: message, "__module__": kind.__module__, "__qualname__": kind.__qualname__},
    )
    made: Exception = bare.__new__(bare, message)
    vars(made).update(attributes)
    return made


def _raised(error: Exception) -> type[Exception] | None:
    """The class of the error in the worker process; None for an error of this process."""
    step = error.__traceback__
    while step is not None:
        wrapper = step.tb_frame.f_locals.get("self")
        if isinstance(wrapper, ExceptionWrapper):
            kind: type[Exception] = wrapper.exc_type
            return kind
        step = step.tb_next
    return None
