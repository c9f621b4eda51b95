"""Records of a run without its learner: reading them, and removing the last of them."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args

from .._utils.checks import is_whole
from .._utils.paths import home_of
from .ledger import Ledger, Round
from .seeds import Seeds
from .store import FILE, Store

Phase = Literal["fit", "ask", "tell"]
PHASES: tuple[Phase, ...] = get_args(Phase)


def read(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], list[Round]]:
    """Reads a run's records, while it is at work or not, and changes nothing.

    Args:
        folder: the run's.

    Returns:
        Its settings, empty where there is no run; and its rounds, of which the last may be under way.

    Raises:
        DamagedRecordError: a record is not what was written.
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


def rewind(folder: str | os.PathLike[str], number: int, phase: Phase | None = None) -> None:
    """Removes round `number` of a run, or its later phases, and what follows; the learner then goes on from there.

    The phases of a round are "fit" (training and evaluation), "ask" and "tell". So `rewind(folder, 3, "tell")` keeps round
    3's model and what it asked for, and its labels are to be told again; `rewind(folder, 3, "ask")` keeps the model only.

    Args:
        folder: the run's.
        number: the first round to remove something of, 0 or more.
        phase: the first of its phases to remove; None for the whole round.

    Raises:
        TypeError: number is no whole number.
        ValueError: number is negative, or there is no such phase.
        LockedError: the run is at work.
        OSError: a file cannot be removed.
    """
    if not is_whole(number):
        raise TypeError(f"expected a round's number to be a whole number, got {number!r}")
    if number < 0:
        raise ValueError(f"expected a round's number >= 0, got {number}")
    if phase not in (None, *PHASES):
        raise ValueError(f"expected phase to be one of {', '.join(PHASES)}, or None; got {phase!r}")
    folder = home_of(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"expected the folder of a run, got {folder}: there is none")
    first = (number, 0 if phase is None else PHASES.index(phase))
    store = Store(folder)
    with store.locked():
        found = [
            ((int(match[1]), PHASES.index(match[2])), match[3] == "pt", file)
            for file in store.names()
            if (match := FILE.fullmatch(file))
        ]
        for place, _, file in sorted(
            found, key=lambda f: (f[0], not f[1]), reverse=True
        ):  # the last first, a model after its fit
            if place >= first:
                store.remove(file)
