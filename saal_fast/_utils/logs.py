"""What the library says while it works: one logger, and warnings that come once."""

from __future__ import annotations

import logging

log = logging.getLogger("saal_fast")

_warned: set[tuple[str, str]] = set()


def warn_once(subject: str, message: str) -> None:
    """Logs a warning, unless the same one about the same subject was logged before in this process."""
    if (subject, message) not in _warned:
        _warned.add((subject, message))
        log.warning("%s", message)


def forget_warnings() -> None:
    """Lets every warning come once more."""
    _warned.clear()
