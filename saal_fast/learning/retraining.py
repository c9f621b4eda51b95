"""Models whose files are lost, trained anew from the records: from the same labels and seeds the same model comes out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .store import DamagedRecordError

if TYPE_CHECKING:
    from .phases import Phases


def retrain(phases: Phases, *, exact: bool) -> list[int]:
    """Trains the last model anew, if its file is gone or damaged; before it those that a warm start goes on from.

    Args:
        phases: of a learner whose ledger is read.
        exact: whether a model must be the recorded one, bit for bit.

    Returns:
        The rounds whose models were trained.

    Raises:
        DamagedRecordError: with `exact`, a model came out otherwise than recorded; its file is not written.
        OSError: a file cannot be written.
    """
    ledger = phases.ledger
    last = max((n for n, record in enumerate(ledger.records) if "fit" in record), default=0)
    first = last + 1
    while first > 1 and not _there(phases, first - 1):
        first -= 1
        if not phases.warm_start:
            break
    left = ledger.seeds.state
    try:
        for number in range(first, last + 1):
            _again(phases, number, exact)
    finally:
        ledger.seeds.restore(left)
        phases.forget()
    return list(range(first, last + 1))


def _there(phases: Phases, number: int) -> bool:
    try:
        phases.learnt(number)
    except DamagedRecordError:
        return False
    return True


def _again(phases: Phases, number: int, exact: bool) -> None:
    """Trains the model of one round anew and writes its file."""
    ledger, started = phases.ledger, time.perf_counter()
    ledger.seeds.restore(ledger.seeds_before(number))
    learnt = phases.train_round(number)
    metrics = phases.measure(learnt.model)  # which may change the model's state: it is as it was then
    name, recorded = f"{number:04d}-fit", ledger.records[number]["fit"]["model"]
    checksum = ledger.store.checksum(learnt.state)
    if checksum != recorded:
        if exact:
            raise DamagedRecordError(
                f"the model of round {number} came out otherwise than recorded, as on another machine, with another "
                f"number of threads or another training. Put {name}.pt back, or take this one: retrain(exact=False)"
            )
        ledger.replace_fit(number, {"model": checksum, "training": learnt.training, "metrics": metrics})
    ledger.store.write_tensors(name, learnt.state)
    phases.clear(number)
    seconds = {"train": time.perf_counter() - started}
    ledger.store.log(event="retrain", round=number, same=checksum == recorded, seconds=seconds)
