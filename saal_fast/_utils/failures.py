"""Whose failure an exception is: that of the work that raised it, or that of something that struck it from outside."""

from __future__ import annotations

import functools
import signal
import traceback
from collections.abc import Callable, Iterator
from types import CodeType, MethodType


def foreign_failure(error: Exception, again: Callable[[], object]) -> Exception | None:
    """The exception that came from outside, where one did; None where `error` is the work's own.

    What a signal handler raises (`signal.alarm`, a DataLoader whose worker died) or another thread throws in strikes work at
    any moment. The work's own failure comes again, at the same place, whenever the work is done.

    Args:
        error: what the work raised.
        again: does the same work.

    Raises:
        Exception: a signal handler raises it while the work is done again.
    """
    if is_from_handler(error):
        return error
    second = _failure(again)
    if second is None:
        return error
    if _place(second) == _place(error):
        return None
    third = _failure(again)
    return second if third is not None and _place(third) == _place(error) else error


def is_from_handler(error: BaseException) -> bool:
    """Whether an exception has come through the handler of a signal, one that is installed or has been noted."""
    note_handlers()
    return any(frame.f_code in _noted for frame, _ in traceback.walk_tb(error.__traceback__))


def note_handlers() -> None:
    """Remembers the handlers that are installed now: one may take itself off before it raises."""
    _noted.update(code for number in signal.valid_signals() for code in _codes(signal.getsignal(number)))


_noted: set[CodeType] = set()


def _failure(work: Callable[[], object]) -> Exception | None:
    try:
        work()
    except Exception as error:
        if is_from_handler(error):
            raise
        return error
    return None


def _place(error: BaseException) -> tuple[type, CodeType, int]:
    """Type of an exception and the line that raised it."""
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    return type(error), frame.f_code, line


def _codes(handler: object) -> Iterator[CodeType]:
    """The code that a handler begins with, where it is Python's."""
    while isinstance(handler, functools.partial | MethodType):
        handler = handler.func if isinstance(handler, functools.partial) else handler.__func__
    for function in (handler, vars(type(handler)).get("__call__")):
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            yield code
