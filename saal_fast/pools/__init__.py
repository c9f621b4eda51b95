"""Pools of samples: one stream of batches on a device, whatever holds the samples."""

from .stream import Batch, Stream

__all__ = ["Batch", "Stream"]
