"""Attention scores q k^T: their distribution, the scale used, the precision they are kept in."""

from __future__ import annotations

from probe.schema import Metric

METRICS = (
    Metric(
        "mean",
        ("score",),
        "statistic",
        "",
        "mean score over visible pairs, as recomputed from the kernel's q and k",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "std",
        ("score",),
        "positive",
        "",
        "standard deviation of scores over visible pairs",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "skew",
        ("score",),
        "statistic",
        "",
        "skewness of scores over visible pairs",
        "steady",
        source="DEFault++",
    ),
    Metric(
        "kurtosis",
        ("score",),
        "statistic",
        "",
        "excess kurtosis of scores over visible pairs",
        "steady",
        source="DEFault++",
    ),
    Metric("max", ("score",), "statistic", "", "largest visible score", "steady"),
    Metric(
        "scale_ratio",
        ("score",),
        "signed",
        "log2",
        "effective scale (kernel scale, and any factor on q or k) against the one this architecture intends",
        "0",
        contract=True,
    ),
    Metric(
        "input_error",
        ("score",),
        "residual",
        "relative",
        "softmax's input against scaled q k^T plus mask, where softmax is called by hand",
        "0",
        contract=True,
        tolerance=1e-4,
    ),
    Metric(
        "dropped",
        ("score",),
        "share",
        "share",
        "visible scores that were set to 0 before softmax",
        "0",
        contract=True,
    ),
    Metric(
        "precision_gap",
        ("score",),
        "signed",
        "bits",
        "bits of significand the scores lost against the dtype asked for (config, autocast)",
        "0",
        contract=True,
    ),
)
