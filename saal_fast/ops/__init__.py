"""Fused operations, a folder each.

`__init__` defines the operators, `reference` says what they compute, `cpu` and `triton` hold their kernels. Without a kernel
for its device an operation runs by its reference: on CUDA those of `depthwise`, `diagonal_sums`, `materialized`, `norms` and
`winograd`, and `gram_norm` and `gram_linear` of `ghost`.
"""
