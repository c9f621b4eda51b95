"""Which samples to label next."""

from .select import Diversity, check_diversity, pick, select, select_scored

__all__ = ["Diversity", "check_diversity", "pick", "select", "select_scored"]
