"""Which samples to label next."""

from .select import Diversity, pick, select, select_scored

__all__ = ["Diversity", "pick", "select", "select_scored"]
