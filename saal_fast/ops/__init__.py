"""Fused operations, a folder each.

`__init__` defines the operators, `reference` says what they compute, `cpu` and `triton` hold their kernels. Where a device has
none (on CUDA: `depthwise`, `diagonal_sums`, `materialized`, `norms`, `winograd`, and of `ghost` the two from products at hand),
the reference runs.
"""
