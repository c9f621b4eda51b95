"""Records on disk: small JSON files and model files that are whole or not there, and a lock.

A record is written to a file beside its place, synced, and renamed: a process killed at any moment, and a disk that is full,
leave what was there before. Each record carries a SHA-256 of its content, so that a damaged one is noticed when it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .._utils.paths import home_of
from .locks import explained, locked
from .plain import plain, spell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VERSION = 1
CHECKSUM = "sha256"
LOG, LOCK = "log.jsonl", "lock"
FILE = re.compile(r"(\d{4,})-(fit|ask|tell)\.(json|pt)")
"""A file of a round: its number, its phase, its kind."""
REWRITE = (
    "All labels are intact: ActiveLearner(..., rewrite_settings=True), made with the run's own arguments, writes the "
    "settings anew from these"
)
Stamp = tuple[int, int, int] | None


class DamagedRecordError(ValueError):
    """A file of a run is not what was written."""


class Store:
    """A folder of records; or, without a folder, a dict of them.

    Args:
        folder: where records are kept, made if need be, "~" for the user's home; None to keep them in memory.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.folder = None if folder is None else home_of(folder)
        self._memory: dict[str, bytes] = {}
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise explained(error, f"cannot make the folder {self.folder}") from error

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes the record `name`, whole or not at all.

        Args:
            name: of the record.
            content: numbers, strings, None, and lists and dicts of these; as `plain.plain` gives them.

        Raises:
            ValueError: it holds a NaN or infinity.
            OSError: it cannot be written; records written before are intact.
        """
        body = spell(content)
        self._put(f"{name}.json", f'{{"{CHECKSUM}": "{_digest(body.encode())}", "record": {body}}}\n'.encode())

    def read(self, name: str) -> dict[str, Any] | None:
        """Reads the record `name`; None where there is none.

        Raises:
            DamagedRecordError: it is not what was written.
            OSError: it cannot be read.
        """
        data = self._get(f"{name}.json")
        if data is None:
            return None
        try:
            whole = json.loads(data)
            content, checksum = whole["record"], whole[CHECKSUM]
        except (ValueError, KeyError, TypeError) as error:
            raise self.damaged(f"{name}.json", "it is no whole record") from error
        if checksum != _digest(json.dumps(content, sort_keys=True).encode()):  # older records may hold a NaN
            raise self.damaged(f"{name}.json", "its checksum differs")
        return content  # type: ignore[no-any-return] # write takes mappings only

    def write_tensors(self, name: str, content: Any) -> str:
        """Writes what `torch.save` takes, whole or not at all, and gives the checksum for `read_tensors`.

        Raises:
            OSError: as `write`.
        """
        data = _packed(content)
        self._put(f"{name}.pt", data)
        return _digest(data)

    @staticmethod
    def checksum(content: Any) -> str:
        """The checksum that `write_tensors` would give."""
        return _digest(_packed(content))

    def read_tensors(self, name: str, checksum: str) -> Any:
        """Reads what `write_tensors` wrote, onto the CPU.

        Raises:
            DamagedRecordError: it is gone, or not what was written.
            OSError: it cannot be read.
        """
        data = self._get(f"{name}.pt")
        if data is None:
            raise self.damaged(f"{name}.pt", "it is gone")
        if _digest(data) != checksum:
            raise self.damaged(f"{name}.pt", "its checksum differs")
        return torch.load(BytesIO(data), map_location="cpu", weights_only=True)

    def names(self) -> list[str]:
        """The files there are, by name, in order."""
        if self.folder is None:
            return sorted(self._memory)
        return sorted(path.name for path in self.folder.iterdir() if path.suffix in (".json", ".pt"))

    def stamp(self, file: str) -> Stamp:
        """What differs when a file is written anew, by whomever; None where it is not there, or kept in memory."""
        if self.folder is None:
            return None
        try:
            found = (self.folder / file).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def stamps(self) -> dict[str, Stamp]:
        """The stamps of all files, by name."""
        return {file: self.stamp(file) for file in self.names()}

    def remove(self, file: str) -> None:
        """Removes a file, if it is there.

        Raises:
            OSError: it cannot be removed.
        """
        if self.folder is None:
            self._memory.pop(file, None)
        else:
            (self.folder / file).unlink(missing_ok=True)

    def log(self, **event: Any) -> None:
        """Appends an event, with the time, to `log.jsonl`; a torn last line of a killed process is closed first.

        Raises:
            OSError: it cannot be written.
        """
        if self.folder is None:
            return
        path = self.folder / LOG
        event = plain({"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **event})
        line = json.dumps(event, allow_nan=False)
        try:
            with path.open("a+b") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else f"\n{line}"
                file.write(f"{line}\n".encode())
        except OSError as error:
            raise explained(error, f"cannot write {path}; the rounds on disk are intact") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; the system lets go of it when the process ends, however that happens.

        Raises:
            LockedError: it is held.
            OSError: the folder cannot be written.
        """
        if self.folder is None:
            yield
            return
        with locked(self.folder / LOCK):
            for left in self.folder.glob(".*.part"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
            yield

    def _put(self, file: str, data: bytes) -> None:
        if self.folder is None:
            self._memory[file] = data
            return
        path, part = self.folder / file, self.folder / f".{file}.part"
        try:
            with part.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            part.replace(path)
            _sync_folder(self.folder)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise explained(error, f"cannot write {path}; the rounds written before are intact") from error

    def _get(self, file: str) -> bytes | None:
        if self.folder is None:
            return self._memory.get(file)
        try:
            return (self.folder / file).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explained(error, f"cannot read {self.folder / file}") from error

    def damaged(self, file: str, why: str) -> DamagedRecordError:
        """The error to raise of a file that is not what was written; says how to go back."""
        place = file if self.folder is None else self.folder / file
        match, back = FILE.fullmatch(file), ""
        if match is not None:
            phase = "" if match[2] == "fit" else f", {match[2]!r}"
            back = (
                f". What was recorded before is intact: saal_fast.learning.rewind({str(self.folder)!r}, {int(match[1])}"
                f"{phase}) removes this record and what follows, and the learner goes on from there"
            )
        if match is not None and match[3] == "pt":
            back = ". The records are intact, all labels too: ActiveLearner.retrain() trains the model anew"
        if file == "settings.json":
            back = f". {REWRITE}"
        return DamagedRecordError(f"{place} is not what was written: {why}{back}")


def _packed(content: Any) -> bytes:
    buffer = BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
