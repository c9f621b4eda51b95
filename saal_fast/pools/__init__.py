"""Pools of samples: one stream of batches on a device, whatever holds the samples."""

from .batch import Batch
from .stream import Stream

__all__ = ["Batch", "Stream"]
