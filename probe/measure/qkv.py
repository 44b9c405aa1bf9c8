"""Projections to queries, keys and values: alignment, and the kernel's q, k, v against the weights."""

from __future__ import annotations

from probe.schema import Metric

METRICS = (
    Metric("cos_qk", ("qkv",), "statistic", "cosine", "mean cosine of a token's q and k", "steady", source="DEFault++"),
    Metric("cos_qv", ("qkv",), "statistic", "cosine", "mean cosine of a token's q and v", "steady", source="DEFault++"),
    Metric("cos_kv", ("qkv",), "statistic", "cosine", "mean cosine of a token's k and v", "steady", source="DEFault++"),
    Metric("q_norm", ("qkv",), "positive", "", "mean norm of q per head over sqrt(head_dim)", "like its peers"),
    Metric("k_norm", ("qkv",), "positive", "", "mean norm of k per head over sqrt(head_dim)", "like its peers"),
    Metric("v_norm", ("qkv",), "positive", "", "mean norm of v per head over sqrt(head_dim)", "like its peers"),
    Metric("q_weight", ("qkv",), "positive", "", "root mean square of the query weights", "like its peers"),
    Metric("k_weight", ("qkv",), "positive", "", "root mean square of the key weights", "like its peers"),
    Metric("v_weight", ("qkv",), "positive", "", "root mean square of the value weights", "like its peers"),
    Metric("q_error", ("qkv",), "residual", "relative", "kernel's q against input times query weights, norms per head (positions cancel)", "0", contract=True, tolerance=1e-4),
    Metric("k_error", ("qkv",), "residual", "relative", "kernel's k against input times key weights, norms per head", "0", contract=True, tolerance=1e-4),
    Metric("v_error", ("qkv",), "residual", "relative", "kernel's v against input times value weights", "0", contract=True, tolerance=1e-4),
    Metric("swapped", ("qkv",), "share", "0 or 1", "kernel's q fits the key projection and k the query projection better than their own", "0", contract=True),
    Metric("tied_heads", ("qkv",), "share", "share", "query heads whose weights equal another head's", "0", contract=True),
    Metric("tied_outputs", ("qkv",), "share", "share", "query heads whose q equals another head's on every sampled token", "0", contract=True),
    Metric("head_count", ("qkv",), "signed", "log2", "heads the kernel sees against the config's", "0", contract=True),
    Metric("zero_weights", ("qkv",), "share", "share", "of the q, k and v weight matrices, those that are all zero", "0", contract=True),
)
