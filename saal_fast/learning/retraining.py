"""Trains models whose files are lost again from the records: the same labels and seeds give the same model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .store import DamagedRecordError

if TYPE_CHECKING:
    from .phases import Phases


def retrain(phases: Phases, *, exact: bool) -> list[int]:
    """Trains the last model again if its file is damaged or missing, and first those that its warm start needs.

    Where all models are kept, it trains the others whose files are damaged too. A file that does not fit its model is one.

    Args:
        phases: the phases of a learner whose ledger is up to date.
        exact: whether a model must equal the recorded one bit for bit.

    Returns:
        The numbers of the rounds whose models were trained.

    Raises:
        DamagedRecordError: with `exact`, a model differs from the recorded one; its file is not written.
        OSError: a file cannot be written.
    """
    ledger = phases.ledger
    last = max((n for n, record in enumerate(ledger.records) if "fit" in record), default=0)
    first = last + 1
    while first > 1 and not _has_model(phases, first - 1):
        first -= 1
        if not phases.warm_start:
            break
    seeds = ledger.seeds.state
    lost = sorted({*phases.damaged_models(), *range(first, last + 1)})
    try:
        for number in lost:
            _retrain_round(phases, number, exact)
    finally:
        ledger.seeds.restore(seeds)
        phases.forget()
    return lost


def _has_model(phases: Phases, number: int) -> bool:
    try:
        phases.load_model(phases.new_model(0), number)
    except DamagedRecordError:
        return False
    return True


def _retrain_round(phases: Phases, number: int, exact: bool) -> None:
    """Trains the model of one round again and writes its file."""
    ledger, started = phases.ledger, time.perf_counter()
    ledger.seeds.restore(ledger.seeds_before(number))
    fitted = phases.train_round(number)
    metrics = phases.evaluate_model(fitted.model)  # it may change the model's state, as it did in the first fit
    name, recorded = f"{number:04d}-fit", ledger.records[number]["fit"]["model"]
    checksum = ledger.store.checksum(fitted.state)
    if checksum != recorded:
        if exact:
            raise DamagedRecordError(
                f"the model of round {number} came out otherwise than recorded, as on another machine, with another "
                f"number of threads or another training. Put {name}.pt back, or take this one: retrain(exact=False)"
            )
        ledger.replace_fit(number, {"model": checksum, "training": fitted.training, "metrics": metrics})
    ledger.store.write_tensors(name, fitted.state)
    phases.remove_old_models(number)
    seconds = {"train": time.perf_counter() - started}
    ledger.store.log(event="retrain", round=number, same=checksum == recorded, seconds=seconds)
