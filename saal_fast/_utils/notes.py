"""Notes on exceptions: what the library knows about an error that a pool or a model raised, which stays that very error."""

from __future__ import annotations

from dataclasses import FrozenInstanceError


class _Note(str):
    """A note of the library's own."""

    key: str

    def __new__(cls, text: str, key: str) -> _Note:
        note = super().__new__(cls, text)
        note.key = key
        return note


def add_note(error: BaseException, note: str, key: str = "") -> None:
    """Adds a line that is shown below the error's message, as `BaseException.add_note` of Python 3.11 does.

    It works for errors that refuse attributes too (frozen dataclasses). Of an error object that is raised again and again
    the note of a `key` replaces the one before.
    """
    given = [n for n in vars(error).get("__notes__", []) if not (isinstance(n, _Note) and n.key == key)]
    attach(error, "__notes__", [*given, _Note(note, key)])


def attach(error: BaseException, name: str, value: object) -> None:
    """Sets an attribute of an error, also of one whose class refuses attributes."""
    vars(error)[name] = value


def thawed(error: BaseException) -> BaseException:
    """The error of a frozen dataclass, of which one of Python's context managers, setting attributes of it, made another."""
    if not isinstance(error, FrozenInstanceError) or "__traceback__" not in str(error):
        return error
    came = vars(error).get("came", error.__context__)
    if came is None:
        return error
    attach(error, "came", came)  # the context is lost where the same object is raised again
    return thawed(came)
