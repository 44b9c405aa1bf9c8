"""Attention weights and output: shape of the maps, the kernel that ran, its output against float32."""

from __future__ import annotations

from probe.schema import Metric

METRICS = (
    Metric("entropy", ("attention",), "share", "of log n", "mean entropy of attention rows over the log of the visible positions", "steady", source="DEFault++"),
    Metric("head_similarity", ("attention",), "statistic", "cosine", "mean cosine between heads' maps", "below 1", source="DEFault++"),
    Metric("head_utilisation", ("attention",), "share", "share", "heads whose normalised entropy is over 0.1", "near 1", source="DEFault++"),
    Metric("max_weight", ("attention",), "share", "", "mean over rows of the largest weight", "steady"),
    Metric("effective_rank", ("attention",), "share", "of n", "exp of the entropy of the map's normalised singular values, over the sampled rows", "steady", source="DEFault++"),
    Metric("output_norm", ("attention",), "positive", "", "mean norm of a head's output over sqrt(head_dim)", "steady"),
    Metric("dead_heads", ("attention",), "share", "share", "heads that contribute nothing to the output projection", "0", contract=True),
    Metric("head_balance", ("attention",), "share", "share", "smallest over largest head output norm", "like its peers"),
    Metric("reference_error", ("attention",), "residual", "relative", "kernel output against softmax(q k^T scale + mask) v in float32 on sampled rows, where no dropout ran", "rounding of the output's dtype", contract=True, tolerance=1e-4),
    Metric("reaches_output", ("attention",), "residual", "relative", "what enters the output projection against the kernel's output", "0", contract=True, tolerance=1e-4),
    Metric("dropout_gap", ("attention",), "signed", "probability", "dropout the kernel used minus the one configured for this mode", "0", contract=True),
    Metric("kernel_changed", ("attention",), "share", "0 or 1", "a different attention implementation ran than the config asks for", "0", contract=True),
    Metric("backend_fallback", ("attention",), "share", "0 or 1", "a slower SDPA backend is chosen than the same call in the model's dtype, contiguous and unrestricted, would get", "0", contract=True),
    Metric("kernel_calls", ("attention",), "signed", "log2", "kernel calls per layer against one", "0", contract=True),
    Metric("precision_gap", ("attention",), "signed", "bits", "bits of significand of the kernel's input dtype lost against the projections' (or autocast's) dtype", "0", contract=True),
)
