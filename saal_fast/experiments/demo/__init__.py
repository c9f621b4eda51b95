"""The demonstration behind `saal-fast demo`: a network, a pool, and the samples SAAL would label first."""

from .pipeline import Result, run
from .settings import Settings
from .task import Task, prepare

__all__ = ["Result", "Settings", "Task", "prepare", "run"]
