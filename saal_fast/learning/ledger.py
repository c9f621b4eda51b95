"""The records of a run, round by round: what it trained, asked and was told.

Round 0 asks for the initial labels and trains nothing. Every later round has three records, each written when its phase is
over:

    0001-fit    results of training and evaluation; beside it 0001-fit.pt, the model and the strategy's own state
    0001-ask    the samples asked for
    0001-tell   their labels, as far as they are known

Each record holds the state of the run's seeds after its phase, so a run resumes from its last record with the same draws.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .jsonable import to_float, to_floats, to_jsonable
from .seeds import Seeds
from .store import FORMAT_VERSION, REWRITE_HINT, ROUND_FILE, DamagedRecordError, Fingerprint, Store

if TYPE_CHECKING:
    from collections.abc import Collection

OPTIONAL_SETTINGS = ("strategy_options", "training", "pool_sha256")
"""Settings that may be unknown (None), as in runs of older versions; they are compared only where both are known."""


@dataclass(frozen=True, eq=False)
class Round:
    """One round of a run.

    Attributes:
        number: 0 for the initial labels, which are given or drawn at random; then 1, 2, ...
        labelled: number of labels that its model learnt from; 0 in round 0.
        training: numbers from training (`loss`), by name.
        metrics: numbers from evaluation, by name.
        asked: positions of the samples asked for, the best first; int64 [k], None before they are chosen.
        scores: the strategy's scores of these samples, NaN where it has none; float64 [k] (empty in round 0).
        labels: their labels, in the order of `asked`; [k, ...], None until all are known.
    """

    number: int
    labelled: int = 0
    training: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    asked: Tensor | None = None
    scores: Tensor | None = None
    labels: Tensor | None = None


class Ledger:
    """All records of a run, in memory and in its store.

    Args:
        store: the files of the records.
        seeds: the run's seeds, which reading sets to their state after the last record.
        size: number of samples in the pool.
    """

    def __init__(self, store: Store, seeds: Seeds, size: int) -> None:
        self.store, self.seeds, self.size = store, seeds, size
        self._initial_seeds = seeds.state
        self.records: list[dict[str, dict[str, Any]]] = [{}]
        self._fingerprints: dict[str, Fingerprint] = {}  # of the files that the records came from

    def check_settings(self, settings: dict[str, Any], *, rewrite: bool = False) -> bool:
        """Writes the settings of a new run, or compares them with those of a run that exists.

        Args:
            settings: content that JSON can hold.
            rewrite: whether to write the settings again if the file is damaged or missing.

        Returns:
            Whether the run existed.

        Raises:
            ValueError: the settings differ; the message names the differences.
            DamagedRecordError: the settings file is damaged, and `rewrite` is False.
            OSError: the file cannot be read or written.
        """
        settings = to_jsonable({"version": FORMAT_VERSION, **settings})
        try:
            old = self.store.read("settings")
        except DamagedRecordError:
            if not rewrite:
                raise
            old = None
        if old is None:
            begun = any(ROUND_FILE.fullmatch(file) for file in self.store.names())
            if begun and not rewrite:
                raise ValueError(
                    f"{self.store.folder} holds rounds, but no settings.json: it is no whole run. {REWRITE_HINT}"
                )
            self.store.write("settings", settings)
            return begun
        differing = [
            f"{key} was {old.get(key)!r} and is {settings.get(key)!r}"
            for key in sorted({*old, *settings})
            if old.get(key) != settings.get(key)
            and (key not in OPTIONAL_SETTINGS or None not in (old.get(key), settings.get(key)))
        ]
        if differing:
            raise ValueError(
                f"{self.store.folder} holds another run: {'; '.join(differing)}. Resume it with its own settings, or take "
                "another folder"
            )
        return True

    def catch_up(self) -> None:
        """Reads the records that were written since the last call, or all of them if one was changed or removed.

        Raises:
            DamagedRecordError: a record is damaged, or one is missing between others.
            OSError: a record cannot be read.
        """
        found = self.store.fingerprints()
        if any(found.get(file) != old for file, old in self._fingerprints.items()):
            self.records, self._fingerprints = [{}], {}  # another learner has corrected or rewound the run
        while self._read_round(len(self.records) - 1, found):
            self.records.append({})
        last = [record for round_ in self.records for record in round_.values()]
        self.seeds.restore(last[-1]["seeds"] if last else self._initial_seeds)  # also after a failed phase
        self._check_nothing_beyond()

    def write(self, phase: str, content: dict[str, Any]) -> None:
        """Records a phase of the current round; when the round is complete, the next one begins."""
        self._write(self.number, phase, {**content, "seeds": self.seeds.state})
        if _is_complete(self.records[-1]):
            self.records.append({})

    def amend(self, number: int, answers: dict[int, Any]) -> None:
        """Replaces labels of a round by those in `answers` (position: label)."""
        tell = self.records[number]["tell"]
        labels = [answers.get(i, label) for i, label in zip(tell["indices"], tell["labels"], strict=True)]
        self._write(number, "tell", {**tell, "labels": labels})

    def replace_fit(self, number: int, content: dict[str, Any]) -> None:
        """Replaces `content` in a round's fit; the state of its seeds stays."""
        self._write(number, "fit", {**self.records[number]["fit"], **content})

    def seeds_before(self, number: int) -> dict[str, Any]:
        """The state of the seeds at the beginning of round `number` >= 1."""
        return dict(self.records[number - 1]["tell"]["seeds"])

    @property
    def number(self) -> int:
        """Number of the current round."""
        return len(self.records) - 1

    @property
    def current(self) -> dict[str, dict[str, Any]]:
        """Records of the current round, by phase."""
        return self.records[-1]

    def pending(self) -> list[int]:
        """Positions that were asked for and have no label yet, the best first."""
        answered = set(self.current.get("tell", {"indices": []})["indices"])
        return [i for i in self.current.get("ask", {"indices": []})["indices"] if i not in answered]

    def answers(self, but: Collection[int] = ()) -> list[Any]:
        """All labels so far, also those of an incomplete round, except those of the positions in `but`."""
        tells = [record["tell"] for record in self.records if "tell" in record]
        return [y for tell in tells for i, y in zip(tell["indices"], tell["labels"], strict=True) if i not in but]

    def labelled(self, before: int | None = None) -> tuple[Tensor, Tensor]:
        """Positions, int64 [n], and labels, [n, ...], of the complete rounds, in the order they were asked for.

        Args:
            before: number of the first round to leave out; None for all complete rounds.
        """
        whole = [self.round(n) for n in range(self.number if before is None else before)]
        return (
            torch.cat([r.asked for r in whole if r.asked is not None] or [torch.zeros(0, dtype=torch.int64, device="cpu")]),
            torch.cat(
                [r.labels for r in whole if r.labels is not None] or [torch.zeros(0, dtype=torch.int64, device="cpu")]
            ),
        )

    def unlabelled(self, before: int | None = None) -> Tensor:
        """Positions without a label, ascending; int64. Args as in `labelled`."""
        rest = torch.ones(self.size, dtype=torch.bool, device="cpu")
        rest[self.labelled(before)[0]] = False
        return rest.nonzero()[:, 0]

    def rounds(self) -> list[Round]:
        """All rounds that have begun."""
        begun = self.records if self.current else self.records[:-1]
        return [self.round(n) for n in range(len(begun))]

    def round(self, number: int) -> Round:
        """The records of a round as a `Round`."""
        record = self.records[number]
        fit, ask = record.get("fit", {}), record.get("ask")
        return Round(
            number=number,
            labelled=fit.get("labelled", 0),
            training=to_floats(fit.get("training", {})),
            metrics=to_floats(fit.get("metrics", {})),
            asked=None if ask is None else torch.tensor(ask["indices"], dtype=torch.int64, device="cpu"),
            scores=None
            if ask is None
            else torch.tensor([to_float(score) for score in ask["scores"]], dtype=torch.float64, device="cpu"),
            labels=_in_order(ask["indices"], record["tell"]) if ask is not None and _is_complete(record) else None,
        )

    def _write(self, number: int, phase: str, content: dict[str, Any]) -> None:
        content, name = to_jsonable(content), f"{number:04d}-{phase}"
        self.store.write(name, content)
        self.records[number][phase] = content
        self._fingerprints[f"{name}.json"] = self.store.fingerprint(f"{name}.json")

    def _read_round(self, number: int, fingerprints: dict[str, Fingerprint]) -> bool:
        """Reads the new records of a round and returns whether it is complete."""
        record = self.records[number]
        for phase in ("fit", "ask", "tell"):
            name = f"{number:04d}-{phase}"
            content = record.get(phase) or self.store.read(name)
            if content is not None:
                fault = None if phase in record else _fault(phase, content, record, self.size)
                if fault:
                    raise self.store.damaged(f"{name}.json", fault)
                record[phase] = content
                self._fingerprints.setdefault(f"{name}.json", fingerprints.get(f"{name}.json"))
            elif number or phase != "fit":
                break
        return _is_complete(record)

    def _check_nothing_beyond(self) -> None:
        """Raises DamagedRecordError if files of later phases exist: then a record before them was lost."""
        for file in self.store.names():
            match = ROUND_FILE.fullmatch(file)
            if match is None or match[3] == "pt":
                continue
            number, phase = int(match[1]), match[2]
            missing = "ask" if phase == "tell" else "fit" if phase == "ask" and number else None
            if number > self.number or (number == self.number and missing and missing not in self.current):
                raise self.store.damaged(
                    f"{self.number:04d}-{missing if number == self.number else 'tell'}.json",
                    f"it is gone or unfinished, though {file} is there",
                )


def _is_complete(record: dict[str, dict[str, Any]]) -> bool:
    """Whether every sample that a round asked for has a label."""
    return "tell" in record and len(record["tell"]["indices"]) == len(record["ask"]["indices"])


def _in_order(indices: list[int], tell: dict[str, Any]) -> Tensor:
    """The labels in the order the samples were asked for."""
    answers = dict(zip(tell["indices"], tell["labels"], strict=True))
    return torch.tensor([answers[i] for i in indices], device="cpu")


_PARTS: dict[str, dict[str, type]] = {
    "fit": {"labelled": int, "training": dict, "metrics": dict, "model": str},
    "ask": {"indices": list, "scores": list},
    "tell": {"indices": list, "labels": list},
}
"""What each phase's record holds, beside the state of the seeds."""


def _fault(phase: str, content: Any, record: dict[str, dict[str, Any]], size: int) -> str | None:
    """What is wrong with a record whose checksum is right, as where it was altered and signed anew.

    Args:
        phase: its phase.
        content: the record.
        record: those of the same round before it.
        size: number of samples in the pool; 0 where it is unknown.
    """
    for name, kind in {**_PARTS[phase], "seeds": dict}.items():
        if not isinstance(content, dict) or not isinstance(content.get(name), kind):
            return f"it has no {name}"
    rows = content.get("indices", [])
    if not all(type(row) is int and row >= 0 and (row < size or not size) for row in rows) or len(set(rows)) < len(rows):
        return f"its positions are not different ones in [0, {size or 'N'})"
    if phase == "tell" and (len(rows) != len(content["labels"]) or not set(rows) <= set(record["ask"]["indices"])):
        return "its labels are not those of the samples asked for"
    return None
