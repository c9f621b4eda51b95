"""Which samples to label next."""

from .select import pick, select, select_scored

__all__ = ["pick", "select", "select_scored"]
