"""Fused operations, a folder each.

`__init__` defines the operators, `reference` says what they compute, `cpu` and `triton` hold their kernels.
"""
