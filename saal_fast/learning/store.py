"""Records on disk: small JSON files and model files, written atomically, and a lock.

A record is written to a temporary file beside its place, synced and renamed, so a killed process or a full disk leaves the
old file. Each record carries the SHA-256 of its content, by which reading notices damage.
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
from .jsonable import dumps, to_jsonable
from .locks import explained, locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT_VERSION = 1
CHECKSUM_KEY = "sha256"
LOG_FILE, LOCK_FILE = "log.jsonl", "lock"
ROUND_FILE = re.compile(r"(\d{4,})-(fit|ask|tell)\.(json|pt)")
"""Name of a round's file: number, phase, kind."""
REWRITE_HINT = (
    "All labels are intact: ActiveLearner(..., rewrite_settings=True), made with the run's own arguments, writes the "
    "settings anew from these"
)
Fingerprint = tuple[int, int, int] | None
"""Inode, time of modification and size of a file; None in memory, or if the file does not exist."""


class DamagedRecordError(ValueError):
    """A file of a run is damaged or missing."""


class Store:
    """The records of a run, in a folder or in memory.

    Args:
        folder: the folder of the records, created if needed, "~" for the user's home; None to keep them in memory.

    Raises:
        OSError: the folder cannot be created.
    """

    def __init__(self, folder: str | bytes | os.PathLike[str] | None) -> None:
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
            name: name of the record.
            content: what `jsonable.to_jsonable` gives.

        Raises:
            ValueError: content holds NaN or infinity.
            OSError: the file cannot be written; earlier records are intact.
        """
        body = dumps(content)
        self._put(f"{name}.json", f'{{"{CHECKSUM_KEY}": "{_digest(body.encode())}", "record": {body}}}\n'.encode())

    def read(self, name: str) -> dict[str, Any] | None:
        """Reads the record `name`; None if it does not exist.

        Raises:
            DamagedRecordError: the record is damaged.
            OSError: the file cannot be read.
        """
        data = self._get(f"{name}.json")
        if data is None:
            return None
        try:
            whole = json.loads(data)
            content, checksum = whole["record"], whole[CHECKSUM_KEY]
        except (ValueError, KeyError, TypeError) as error:
            raise self.damaged(f"{name}.json", "it is no whole record") from error
        if checksum != _digest(json.dumps(content, sort_keys=True).encode()):  # older records may hold a NaN
            raise self.damaged(f"{name}.json", "its checksum differs")
        return content  # type: ignore[no-any-return] # write takes mappings only

    def write_tensors(self, name: str, content: Any) -> str:
        """Writes what `torch.save` takes, whole or not at all, and returns the checksum for `read_tensors`.

        Raises:
            OSError: the file cannot be written; earlier records are intact.
        """
        data = _serialized(content)
        self._put(f"{name}.pt", data)
        return _digest(data)

    @staticmethod
    def checksum(content: Any) -> str:
        """The checksum that `write_tensors` would return."""
        return _digest(_serialized(content))

    def read_tensors(self, name: str, checksum: str) -> Any:
        """Reads onto the CPU what `write_tensors` wrote.

        Raises:
            DamagedRecordError: the file is damaged or missing.
            OSError: the file cannot be read.
        """
        data = self._get(f"{name}.pt")
        if data is None:
            raise self.damaged(f"{name}.pt", "it is gone")
        if _digest(data) != checksum:
            raise self.damaged(f"{name}.pt", "its checksum differs")
        try:
            return torch.load(BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # torch has many: UnpicklingError, EOFError, RuntimeError, KeyError, ...
            raise self.damaged(
                f"{name}.pt", f"torch.load cannot read it ({str(error).strip().partition(chr(10))[0]})"
            ) from error

    def is_damaged(self, name: str, checksum: str) -> bool:
        """Whether a file that `write_tensors` wrote is there and holds something else.

        Raises:
            OSError: the file cannot be read.
        """
        data = self._get(f"{name}.pt")
        return data is not None and _digest(data) != checksum

    def names(self) -> list[str]:
        """The names of all files of records, sorted."""
        if self.folder is None:
            return sorted(self._memory)
        return sorted(path.name for path in self.folder.iterdir() if path.suffix in (".json", ".pt"))

    def fingerprint(self, file: str) -> Fingerprint:
        """The fingerprint of a file, which changes whenever anyone writes it."""
        if self.folder is None:
            return None
        try:
            found = (self.folder / file).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def fingerprints(self) -> dict[str, Fingerprint]:
        """The fingerprints of all files, by name."""
        return {file: self.fingerprint(file) for file in self.names()}

    def remove(self, file: str) -> None:
        """Removes a file if it exists.

        Raises:
            OSError: the file cannot be removed.
        """
        if self.folder is None:
            self._memory.pop(file, None)
        else:
            (self.folder / file).unlink(missing_ok=True)

    def log(self, **event: Any) -> None:
        """Appends an event, with the time, to `log.jsonl`, on a line of its own even after a line that a kill cut off.

        Raises:
            OSError: the log cannot be written.
        """
        if self.folder is None:
            return
        path = self.folder / LOG_FILE
        event = to_jsonable({"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **event})
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
        """Locks the folder for one user at a time; the operating system frees it when the process ends, even by a kill.

        Raises:
            LockedError: another process, or another learner of this one, has locked the folder.
            OSError: the folder cannot be written.
        """
        if self.folder is None:
            yield
            return
        with locked(self.folder / LOCK_FILE):
            for part in self.folder.glob(".*.part"):  # from a process that was killed while it wrote
                part.unlink(missing_ok=True)
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
        """The error to raise for a damaged or missing file; its message says how to recover."""
        place = file if self.folder is None else self.folder / file
        match, advice = ROUND_FILE.fullmatch(file), ""
        if match is not None:
            phase = "" if match[2] == "fit" else f", {match[2]!r}"
            advice = (
                f". What was recorded before is intact: saal_fast.learning.rewind({str(self.folder)!r}, {int(match[1])}"
                f"{phase}) removes this record and what follows, and the learner goes on from there"
            )
        if match is not None and match[3] == "pt":
            advice = ". The records are intact, all labels too: ActiveLearner.retrain() trains the model anew"
        if file == "settings.json":
            advice = f". {REWRITE_HINT}"
        return DamagedRecordError(f"{place} is not what was written: {why}{advice}")


def _serialized(content: Any) -> bytes:
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
