"""Whose failure an exception is: that of the work that raised it, or that of something that struck it from outside."""

from __future__ import annotations

import functools
import signal
import sys
import threading
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
    """Whether an exception has come through the handler of a signal, or over one that has."""
    return struck_by(error) is not None


def struck_by(error: BaseException) -> BaseException | None:
    """The exception from the handler of a signal that is this one, or that this one has come over; None where there is none.

    What strikes torch's own context managers may leave them with another exception than it came with.
    """
    note_handlers()
    ignored = {id(e) for e in getattr(_here, "handled", ())}
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen or id(one) in ignored:
            continue
        seen.add(id(one))
        if isinstance(one, KeyboardInterrupt) or any(
            frame.f_code in _noted for frame, _ in traceback.walk_tb(one.__traceback__)
        ):
            return one
        waiting += [e for e in (one.__cause__, one.__context__) if e is not None]
    return None


class FailuresWithin:
    """Within it, the exception that is being handled already, in whose `except` block all happens, strikes nothing."""

    def __enter__(self) -> None:
        self.before = getattr(_here, "handled", ())
        _here.handled = (*self.before, *(e for e in (sys.exc_info()[1],) if e is not None))

    def __exit__(self, *error: object) -> None:
        _here.handled = self.before


_here = threading.local()


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
