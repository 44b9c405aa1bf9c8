"""All metric definitions, gathered from the files that compute them."""

from __future__ import annotations

from probe.measure import (
    attention,
    drift,
    embedding,
    ffn,
    kv_cache,
    mask,
    norm,
    output,
    parameters,
    positional,
    qkv,
    residual,
    score,
    training,
)
from probe.schema import Column, Metric, Site

METRICS: tuple[Metric, ...] = (
    *embedding.METRICS,
    *positional.METRICS,
    *qkv.METRICS,
    *score.METRICS,
    *mask.METRICS,
    *attention.METRICS,
    *kv_cache.METRICS,
    *residual.METRICS,
    *norm.METRICS,
    *ffn.METRICS,
    *output.METRICS,
    *drift.METRICS,
    *parameters.METRICS,
    *training.METRICS,
)


def columns_for(sites: tuple[Site, ...]) -> tuple[Column, ...]:
    """Every metric at every site whose node it is defined for, sites in their own order."""
    return tuple(
        Column(site.name, metric.name)
        for site in sites
        for metric in METRICS
        if site.node in metric.nodes
    )
