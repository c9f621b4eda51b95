"""How much memory the system would still give this process: Linux's own estimate, and the limits of its cgroups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

NO_LIMIT = 2**60
"""Limits from here on are how cgroup v1 says that there is none."""


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be had without swapping, what the page cache would give back included; None where nothing says so.

    Args:
        root: where the file system begins.
    """
    found = [_mem_available(root), *_left_in_cgroups(root)]
    known = [n for n in found if n is not None]
    return max(0, min(known)) if known else None


def _mem_available(root: Path) -> int | None:
    kib = _fields(root / "proc/meminfo").get("MemAvailable:")
    return None if kib is None else 1024 * kib


def _left_in_cgroups(root: Path) -> Iterator[int | None]:
    """What each memory cgroup of the process, and each above it, leaves."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                yield from _left(root / mount, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left(root / "sys/fs/cgroup/memory", path, *names)


def _left(mount: Path, path: str, limit: str, usage: str, reclaimable: str) -> Iterator[int | None]:
    """What the groups from `path` up to the mount leave; a container may see its own group as the mount."""
    parts = [part for part in path.split("/") if part and part != ".."]
    for depth in range(len(parts) + 1):
        group = mount.joinpath(*parts[:depth])
        most, used = _number(_read(group / limit)), _number(_read(group / usage))
        if most is not None and used is not None and most < NO_LIMIT:
            yield most - used + min(used, _fields(group / "memory.stat").get(reclaimable, 0))


def _fields(file: Path) -> dict[str, int]:
    """The lines `name number` of a file."""
    fields = {}
    for line in _read(file).splitlines():
        name, *rest = line.split()[:2] or [""]
        if rest and (number := _number(rest[0])) is not None:
            fields[name] = number
    return fields


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _read(file: Path) -> str:
    """A file's text; empty where it cannot be read, as under other systems and in some containers."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
