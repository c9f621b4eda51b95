"""The demonstration behind `saal-fast demo`: a network, a pool, and the samples that SAAL would label first."""

from .partition import Partition, prepare
from .pipeline import Result, run
from .settings import Settings

__all__ = ["Partition", "Result", "Settings", "prepare", "run"]
