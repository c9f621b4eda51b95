"""Labels as they are told, and corrected."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .rows import alike

if TYPE_CHECKING:
    from .ledger import Ledger


def tell(ledger: Ledger, told: list[int], answers: list[Any]) -> None:
    """Records answers to what was asked.

    Args:
        ledger: caught up.
        told: positions in the pool.
        answers: their labels, as `rows.pairs` gives both.

    Raises:
        ValueError: a sample was not asked for, is told already or twice; or labels are unlike those told before.
        OSError: the record cannot be written.
    """
    pending = ledger.pending()
    stray = sorted(i for i, times in Counter(told).items() if times > 1 or i not in pending)
    if stray:
        raise ValueError(f"expected samples that are asked for and not told yet, each once; got {stray} beside them")
    known = ledger.answers()
    if known:
        answers = alike(answers, known[0])
    before = ledger.current.get("tell", {"indices": [], "labels": []})
    number = ledger.number
    ledger.write("tell", {"indices": [*before["indices"], *told], "labels": [*before["labels"], *answers]})
    ledger.store.log(event="tell", round=number, labels=len(told))


def correct(ledger: Ledger, rows: list[int], answers: list[Any]) -> None:
    """Puts other labels in place of those told, where no model has learnt from them.

    Args:
        ledger: caught up.
        rows: positions in the pool, different ones.
        answers: their labels, as `rows.pairs` gives both.

    Raises:
        ValueError: a sample is not told, a model has learnt from its label, or labels are unlike those that stay.
        OSError: the record cannot be written.
    """
    told = {i: n for n, record in enumerate(ledger.records) for i in record.get("tell", {"indices": []})["indices"]}
    first = ledger.number - ("fit" not in ledger.current)
    stray = [i for i in rows if i not in told]
    if stray:
        raise ValueError(f"expected samples that are told, got {stray[:5]} which are not")
    late = [i for i in rows if told[i] < first]
    if late:
        raise ValueError(
            f"a model has learnt from the labels of {late[:5]} already: saal_fast.learning.rewind(folder, "
            f"{min(told[i] for i in late) + 1}) removes it and what follows"
        )
    rest = ledger.answers(but=set(rows))
    if rest:
        try:
            answers = alike(answers, rest[0])
        except ValueError as error:
            every = len(rest) + len(rows)
            raise ValueError(f"{error}. To change the kind of all, give all {every} labels at once") from error
    for number in {told[i] for i in rows}:
        ledger.amend(number, dict(zip(rows, answers, strict=True)))
    ledger.store.log(event="correct", labels=len(rows))
