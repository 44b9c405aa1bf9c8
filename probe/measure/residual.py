"""Residual junctions: before + branch = after, and how much a branch turns the stream."""

from __future__ import annotations

from probe.schema import Metric

_NODES = ("residual_attention", "residual_ffn")

METRICS = (
    Metric(
        "cosine",
        _NODES,
        "statistic",
        "cosine",
        "mean cosine of the stream before and after",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "branch_ratio",
        _NODES,
        "positive",
        "",
        "norm of the branch over the norm of the stream",
        "like its peers",
    ),
    Metric(
        "stream_norm",
        _NODES,
        "positive",
        "",
        "norm of the stream after, over sqrt(width)",
        "steady",
    ),
    Metric(
        "sum_error",
        _NODES,
        "residual",
        "relative",
        "stream after against before + branch",
        "rounding",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "skip_gain",
        _NODES,
        "signed",
        "",
        "coefficient of the stream before in the stream after, minus 1",
        "0",
        contract=True,
    ),
    Metric(
        "branch_gain",
        _NODES,
        "signed",
        "",
        "coefficient of the branch in the stream after, minus 1",
        "0",
        contract=True,
    ),
    Metric(
        "dropout_gap",
        _NODES,
        "signed",
        "probability",
        "dropout on the branch minus the config's",
        "0",
        contract=True,
    ),
)
