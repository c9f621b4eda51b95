"""The records of a run, round by round: what was trained, asked and told.

Round 0 asks for the initial labels and trains nothing. Every later round is three records, each written when its phase is
over:

    0001-fit    what training and evaluation gave; beside it 0001-fit.pt, the model and the strategy's own state
    0001-ask    the samples asked for
    0001-tell   their labels, as far as they are told

Each holds the state of the run's seeds after it, so a run goes on from its last record as if nothing had happened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .plain import number as read_number
from .plain import numbers, plain
from .seeds import Seeds
from .store import FILE, REWRITE, VERSION, DamagedRecordError, Stamp, Store

if TYPE_CHECKING:
    from collections.abc import Collection

LATER = ("strategy_options", "training", "pool_sha256")  # of the settings: None where not known, as in older runs


@dataclass(frozen=True, eq=False)
class Round:
    """One round of a run.

    Attributes:
        number: 0 for the initial labels, which are given or drawn at random; then 1, 2, ...
        labelled: how many labels its model learnt from; 0 in round 0.
        training: what training told of itself (`loss`), by name.
        metrics: what the evaluation gave, by name.
        asked: positions in the pool, best first; int64 [k], None as long as nothing was asked.
        scores: the strategy's scores of these, NaN where it has none; float64 [k] (empty in round 0).
        labels: the answers, in the order of `asked`; [k, ...], None until all are told.
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
        store: where they are kept.
        seeds: brought to where the last record left them.
        size: how many samples the pool holds.
    """

    def __init__(self, store: Store, seeds: Seeds, size: int) -> None:
        self.store, self.seeds, self.size = store, seeds, size
        self._fresh = seeds.state
        self.records: list[dict[str, dict[str, Any]]] = [{}]
        self._stamps: dict[str, Stamp] = {}  # of the files that the records were read from, or written to

    def settle(self, settings: dict[str, Any], *, rewrite: bool = False) -> bool:
        """Writes down the run's settings, or holds them against those written down; False where the run is new.

        Args:
            settings: what JSON can hold.
            rewrite: write them anew where those written down are damaged or gone.

        Raises:
            ValueError: they differ; the message names how.
            DamagedRecordError: the settings, or a record, are not what was written.
            OSError: they cannot be written.
        """
        settings = plain({"version": VERSION, **settings})
        try:
            old = self.store.read("settings")
        except DamagedRecordError:
            if not rewrite:
                raise
            old = None
        if old is None:
            begun = any(FILE.fullmatch(file) for file in self.store.names())
            if begun and not rewrite:
                raise ValueError(f"{self.store.folder} holds rounds, but no settings.json: it is no whole run. {REWRITE}")
            self.store.write("settings", settings)
            return begun
        differing = [
            f"{key} was {old.get(key)!r} and is {settings.get(key)!r}"
            for key in sorted({*old, *settings})
            if old.get(key) != settings.get(key) and (key not in LATER or None not in (old.get(key), settings.get(key)))
        ]
        if differing:
            raise ValueError(
                f"{self.store.folder} holds another run: {'; '.join(differing)}. Resume it with its own settings, or take "
                "another folder"
            )
        return True

    def catch_up(self) -> None:
        """Reads what was recorded since, if anything; of a run that was rewound, all that is left.

        Raises:
            DamagedRecordError: a record is not what was written, or one is missing between others.
            OSError: a record cannot be read.
        """
        there = self.store.stamps()
        if any(there.get(file) != stamp for file, stamp in self._stamps.items()):
            self.records, self._stamps = [{}], {}  # somebody has corrected or rewound the run: all is read anew
        while self._read_round(len(self.records) - 1, there):
            self.records.append({})
        last = [record for round_ in self.records for record in round_.values()]
        self.seeds.restore(last[-1]["seeds"] if last else self._fresh)  # also after a phase that drew, and failed
        self._check_nothing_beyond()

    def write(self, phase: str, content: dict[str, Any]) -> None:
        """Records a phase of the round at hand, in the store and then here; a round that is told in full makes way."""
        self._write(self.number, phase, {**content, "seeds": self.seeds.state})
        if self._told(self.records[-1]):
            self.records.append({})

    def amend(self, number: int, answers: dict[int, Any]) -> None:
        """Writes a round's labels anew, with those in `answers` (position: label) in place of what was told."""
        tell = self.records[number]["tell"]
        labels = [answers.get(i, label) for i, label in zip(tell["indices"], tell["labels"], strict=True)]
        self._write(number, "tell", {**tell, "labels": labels})

    def replace_fit(self, number: int, content: dict[str, Any]) -> None:
        """Writes a round's fit anew, with `content` in place of what it held, the state of the seeds left."""
        self._write(number, "fit", {**self.records[number]["fit"], **content})

    def seeds_before(self, number: int) -> dict[str, Any]:
        """The state of the seeds that the training of round `number` >= 1 began with."""
        return dict(self.records[number - 1]["tell"]["seeds"])

    @property
    def number(self) -> int:
        """The round at hand."""
        return len(self.records) - 1

    @property
    def current(self) -> dict[str, dict[str, Any]]:
        """The records of the round at hand."""
        return self.records[-1]

    def pending(self) -> list[int]:
        """Positions that were asked for and are not told, the best first."""
        answered = set(self.current.get("tell", {"indices": []})["indices"])
        return [i for i in self.current.get("ask", {"indices": []})["indices"] if i not in answered]

    def answers(self, but: Collection[int] = ()) -> list[Any]:
        """All labels told so far, also of a round that is told in part, but those of the positions in `but`."""
        told = [record["tell"] for record in self.records if "tell" in record]
        return [y for tell in told for i, y in zip(tell["indices"], tell["labels"], strict=True) if i not in but]

    def labelled(self, before: int | None = None) -> tuple[Tensor, Tensor]:
        """Positions and labels of the rounds that are told in full, in the order they were asked; int64 [n], [n, ...].

        Args:
            before: of the rounds before this one only.
        """
        whole = [self.round(n) for n in range(self.number if before is None else before)]
        return (
            torch.cat([r.asked for r in whole if r.asked is not None] or [torch.zeros(0, dtype=torch.int64)]),
            torch.cat([r.labels for r in whole if r.labels is not None] or [torch.zeros(0, dtype=torch.int64)]),
        )

    def unlabelled(self, before: int | None = None) -> Tensor:
        """The other positions, ascending; int64."""
        rest = torch.ones(self.size, dtype=torch.bool)
        rest[self.labelled(before)[0]] = False
        return rest.nonzero()[:, 0]

    def rounds(self) -> list[Round]:
        """All rounds that have begun."""
        begun = self.records if self.current else self.records[:-1]
        return [self.round(n) for n in range(len(begun))]

    def round(self, number: int) -> Round:
        """What the records tell of a round."""
        record = self.records[number]
        fit, ask = record.get("fit", {}), record.get("ask")
        return Round(
            number=number,
            labelled=fit.get("labelled", 0),
            training=numbers(fit.get("training", {})),
            metrics=numbers(fit.get("metrics", {})),
            asked=None if ask is None else torch.tensor(ask["indices"], dtype=torch.int64),
            scores=None
            if ask is None
            else torch.tensor([read_number(score) for score in ask["scores"]], dtype=torch.float64),
            labels=_in_order(ask["indices"], record["tell"]) if ask is not None and self._told(record) else None,
        )

    def _write(self, number: int, phase: str, content: dict[str, Any]) -> None:
        content, name = plain(content), f"{number:04d}-{phase}"
        self.store.write(name, content)
        self.records[number][phase] = content
        self._stamps[f"{name}.json"] = self.store.stamp(f"{name}.json")

    def _read_round(self, number: int, stamps: dict[str, Stamp]) -> bool:
        """Reads what is new of a round; True when it is complete."""
        record = self.records[number]
        for phase in ("fit", "ask", "tell"):
            name = f"{number:04d}-{phase}"
            content = record.get(phase) or self.store.read(name)
            if content is not None:
                record[phase] = content
                self._stamps.setdefault(f"{name}.json", stamps.get(f"{name}.json"))
            elif number or phase != "fit":
                break
        return self._told(record)

    def _check_nothing_beyond(self) -> None:
        """Raises where files of later phases lie there: a record between was lost."""
        for file in self.store.names():
            match = FILE.fullmatch(file)
            if match is None or match[3] == "pt":
                continue
            number, phase = int(match[1]), match[2]
            missing = "ask" if phase == "tell" else "fit" if phase == "ask" and number else None
            if number > self.number or (number == self.number and missing and missing not in self.current):
                raise self.store.damaged(
                    f"{self.number:04d}-{missing if number == self.number else 'tell'}.json",
                    f"it is gone or unfinished, though {file} is there",
                )

    @staticmethod
    def _told(record: dict[str, dict[str, Any]]) -> bool:
        return "tell" in record and len(record["tell"]["indices"]) == len(record["ask"]["indices"])


def _in_order(indices: list[int], tell: dict[str, Any]) -> Tensor:
    answers = dict(zip(tell["indices"], tell["labels"], strict=True))
    return torch.tensor([answers[i] for i in indices])
