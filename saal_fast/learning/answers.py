"""Labels of samples that were asked for: parsed, recorded and corrected."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .._utils.arrays import as_tensor

if TYPE_CHECKING:
    from .ledger import Ledger


def parse_answers(indices: Any, labels: Any, *, size: int | None = None) -> tuple[list[int], list[Any]]:
    """Converts positions and their labels to plain lists.

    Args:
        indices: whole numbers; [n].
        labels: numbers, or arrays of one shape; [n, ...].
        size: size of the pool, to check that positions are in range and different; None to leave that to the caller.

    Raises:
        TypeError: a position is not a whole number, or a label is not a number.
        ValueError: the numbers of labels and positions differ, labels differ in shape or are not finite, or a position is
            out of range or repeated.
    """
    try:
        at = as_tensor(indices).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected positions as whole numbers of shape [n]: {error}") from error
    if at.numel() == 0:
        at = at.long()
    if at.ndim != 1 or at.is_floating_point() or at.dtype == torch.bool:
        raise TypeError(f"expected positions as whole numbers of shape [n], got {at.dtype} {list(at.shape)}")
    if isinstance(labels, (list, tuple)):
        labels = [y.tolist() if isinstance(y, (Tensor, np.ndarray)) else y for y in labels]
        word = next((y for y in labels if isinstance(y, str)), None)
        if word is not None:
            raise TypeError(f"expected labels as numbers, the classes' positions say; got {word!r}")
    try:
        answers = as_tensor(labels).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected labels as numbers, or arrays of one shape: {error}") from error
    if answers.ndim < 1 or len(answers) != len(at):
        raise ValueError(f"expected labels for {len(at)} samples, got {list(answers.shape)}")
    given = at.tolist()
    lost = [i for i, good in zip(given, answers.isfinite()[:, None].flatten(1).all(1).tolist(), strict=True) if not good]
    if lost:
        raise ValueError(f"expected finite labels, got NaN or inf for the samples {lost[:5]}")
    if size is not None:
        stray = sorted(i for i, times in Counter(given).items() if times > 1 or not 0 <= i < size)
        if stray:
            raise ValueError(f"expected different positions in [0, {size}), got {stray[:5]} among them")
    return given, answers.tolist()


def match_labels(labels: list[Any], known: Any) -> list[Any]:
    """Converts labels to the type of a known one, so that all labels of a run can be stacked; only integers become floats.

    Raises:
        ValueError: the labels have another shape, or a type that is not converted.
    """
    given, expected = torch.tensor(labels, device="cpu"), torch.tensor(known, device="cpu")
    if not labels:
        return labels
    if given.shape[1:] != expected.shape:
        raise ValueError(
            f"expected labels of shape {list(expected.shape)}, as those told before; got {list(given.shape[1:])}"
        )
    if expected.is_floating_point() and not given.is_floating_point() and given.dtype != torch.bool:
        return list(given.to(expected.dtype).tolist())
    if given.dtype != expected.dtype:
        raise ValueError(f"expected labels of {expected.dtype}, as those told before; got {given.dtype}")
    return labels


def tell(ledger: Ledger, rows: list[int], answers: list[Any]) -> None:
    """Records labels of samples that were asked for.

    Args:
        ledger: the up-to-date records.
        rows: positions in the pool, as `parse_answers` gives them.
        answers: their labels, as `parse_answers` gives them.

    Raises:
        ValueError: a sample was not asked for, has a label already or is repeated; or the labels do not match those known.
        OSError: the record cannot be written.
    """
    pending = ledger.pending()
    stray = sorted(i for i, times in Counter(rows).items() if times > 1 or i not in pending)
    if stray:
        raise ValueError(f"expected samples that are asked for and not told yet, each once; got {stray} beside them")
    known = ledger.answers()
    if known:
        answers = match_labels(answers, known[0])
    before = ledger.current.get("tell", {"indices": [], "labels": []})
    number = ledger.number
    ledger.write("tell", {"indices": [*before["indices"], *rows], "labels": [*before["labels"], *answers]})
    ledger.store.log(event="tell", round=number, labels=len(rows))


def correct(ledger: Ledger, rows: list[int], answers: list[Any]) -> None:
    """Replaces labels that no model has learnt from.

    Args:
        ledger: the up-to-date records.
        rows: different positions in the pool, as `parse_answers` gives them.
        answers: their new labels, as `parse_answers` gives them.

    Raises:
        ValueError: a sample has no label yet, a model has learnt from its label, or the labels do not match the others.
        OSError: the record cannot be written.
    """
    round_of = {i: n for n, record in enumerate(ledger.records) for i in record.get("tell", {"indices": []})["indices"]}
    first = ledger.number - ("fit" not in ledger.current)
    stray = [i for i in rows if i not in round_of]
    if stray:
        raise ValueError(f"expected samples that are told, got {stray[:5]} which are not")
    late = [i for i in rows if round_of[i] < first]
    if late:
        raise ValueError(
            f"a model has learnt from the labels of {late[:5]} already: saal_fast.learning.rewind(folder, "
            f"{min(round_of[i] for i in late) + 1}) removes it and what follows"
        )
    rest = ledger.answers(but=set(rows))
    if rest:
        try:
            answers = match_labels(answers, rest[0])
        except ValueError as error:
            every = len(rest) + len(rows)
            raise ValueError(f"{error}. To change the kind of all, give all {every} labels at once") from error
    for number in {round_of[i] for i in rows}:
        ledger.amend(number, dict(zip(rows, answers, strict=True)))
    ledger.store.log(event="correct", labels=len(rows))
