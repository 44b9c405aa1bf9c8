"""Token embedding: its scale, whether the lookup gives the rows it should, dead rows and dims."""

from __future__ import annotations

from probe.schema import Metric

METRICS = (
    Metric(
        "norm", ("embedding",), "positive", "", "mean token vector norm over sqrt(width)", "steady"
    ),
    Metric(
        "token_variance",
        ("embedding",),
        "positive",
        "",
        "variance across tokens, mean over dimensions",
        "steady",
    ),
    Metric(
        "lookup_error",
        ("embedding",),
        "residual",
        "relative",
        "embedding output against the table's rows of the input ids",
        "0",
        contract=True,
        tolerance=1e-5,
    ),
    Metric(
        "zero_rows",
        ("embedding",),
        "share",
        "share",
        "rows used by this batch that are all zero, padding row aside",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "zero_dims",
        ("embedding",),
        "share",
        "share",
        "dimensions that do not vary over the sampled tokens",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "type_scale",
        ("embedding",),
        "signed",
        "log2",
        "segment embedding output against its table's rows, as a ratio of norms",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
)
