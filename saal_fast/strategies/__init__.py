"""Acquisition functions behind one small protocol (`Strategy`)."""

from .base import Selection, Strategy, TrainingHook

__all__ = ["Selection", "Strategy", "TrainingHook"]
