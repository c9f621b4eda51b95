"""Fused operations, one file each: the reference and its faster twins side by side."""
