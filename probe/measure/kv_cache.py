"""Key/value cache: short cached decoding against a fresh forward, on rare samples, decoders only."""

from __future__ import annotations

from probe.schema import Metric

METRICS = (
    Metric(
        "key_error",
        ("kv_cache",),
        "residual",
        "relative",
        "cached keys against a fresh forward's",
        "0",
        source="DEFault++",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "value_error",
        ("kv_cache",),
        "residual",
        "relative",
        "cached values against a fresh forward's",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "length_gap",
        ("kv_cache",),
        "signed",
        "log2",
        "positions held by the cache against positions seen",
        "0",
        contract=True,
    ),
    Metric(
        "stale_share",
        ("kv_cache",),
        "share",
        "share",
        "cached positions whose key equals another position's",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "last_error",
        ("kv_cache",),
        "residual",
        "relative",
        "key of the newest position against a fresh forward's",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "logits_error",
        ("kv_cache",),
        "residual",
        "relative",
        "logits by cached decoding against a fresh forward; the same at every layer",
        "0",
        contract=True,
        tolerance=1e-3,
    ),
    Metric(
        "divergence",
        ("kv_cache",),
        "residual",
        "nats",
        "KL(cached, fresh) of the next-token distribution; the same at every layer",
        "0",
        source="DEFault++",
        contract=True,
        tolerance=1e-5,
    ),
)
