"""Reads the records of a run, or removes the last of them, without its learner."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

from .._utils.checks import check_whole
from .._utils.paths import home_of
from .ledger import Ledger, Round
from .seeds import Seeds
from .store import ROUND_FILE, Store

Phase = Literal["fit", "ask", "tell"]
PHASES: tuple[Phase, ...] = get_args(Phase)


def read(folder: str | bytes | os.PathLike[str]) -> tuple[dict[str, Any], list[Round]]:
    """Reads a run's records, also while a learner is at work on it, and changes nothing.

    Args:
        folder: the run's folder.

    Returns:
        The run's settings (empty if there is no run) and its rounds, of which the last may be unfinished.

    Raises:
        DamagedRecordError: a record is damaged or missing.
        OSError: a record cannot be read.
    """
    folder = home_of(folder)
    if not folder.is_dir():
        return {}, []
    store = Store(folder)
    ledger = Ledger(store, Seeds(0), 0)
    settings = store.read("settings")
    ledger.catch_up()
    return settings or {}, ledger.rounds()


def rewind(folder: str | bytes | os.PathLike[str], number: int, phase: Phase | None = None) -> None:
    """Removes round `number` of a run, or its later phases, and all that follows; the learner then goes on from there.

    The phases of a round are "fit" (training and evaluation), "ask" and "tell". `rewind(folder, 3, "tell")` keeps the model
    of round 3 and the samples it asked for, so that their labels are asked for again; `rewind(folder, 3, "ask")` keeps only
    the model.

    Args:
        folder: the run's folder.
        number: the first round to remove records of, 0 or more.
        phase: the first of its phases to remove; None for the whole round.

    Raises:
        TypeError: number is not a whole number.
        ValueError: number is negative, or phase is unknown.
        FileNotFoundError: the folder does not exist.
        LockedError: a learner is at work on the run.
        OSError: a file cannot be removed.
    """
    check_whole("a round's number", number, 0)
    if phase not in (None, *PHASES):
        raise ValueError(f"expected phase to be one of {', '.join(PHASES)}, or None; got {phase!r}")
    folder = home_of(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"expected the folder of a run, got {folder}: there is none")
    first = (number, 0 if phase is None else PHASES.index(phase))
    store = Store(folder)
    with store.locked():
        found = [
            ((int(match[1]), PHASES.index(match[2])), match[3] == "json", file)
            for file in store.names()
            if (match := ROUND_FILE.fullmatch(file))
        ]
        for place, _, file in sorted(found, reverse=True):  # the last first, and a model after its record
            if place >= first:
                store.remove(file)
