"""Gradients and updates of every component's parameters, and who is left out by the optimizer."""

from __future__ import annotations

from probe.schema import Metric

NODES = (
    "embedding", "positional", "qkv", "attention", "norm_attention", "norm_ffn", "norm_final", "ffn",
    "output",
)  # fmt: skip

METRICS = (
    Metric(
        "grad_norm",
        NODES,
        "positive",
        "",
        "norm of the gradient over the root of the number of elements",
        "like its peers",
        source="DEFault++",
    ),
    Metric(
        "update_ratio",
        NODES,
        "positive",
        "",
        "norm of the step's change over the norm of the weights, on strided elements",
        "1e-4 to 1e-2",
        source="DEFault++",
    ),
    Metric(
        "unmoved",
        NODES,
        "share",
        "share",
        "parameters reached in forward that got no gradient or did not move though they should",
        "0",
        contract=True,
    ),
    Metric(
        "q_update",
        ("qkv",),
        "positive",
        "",
        "update ratio of the query weights",
        "like k's and v's",
    ),
    Metric(
        "k_update", ("qkv",), "positive", "", "update ratio of the key weights", "like q's and v's"
    ),
    Metric(
        "v_update",
        ("qkv",),
        "positive",
        "",
        "update ratio of the value weights",
        "like q's and k's",
    ),
)
