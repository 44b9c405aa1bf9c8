"""All metric definitions, gathered from the files that compute them."""

from __future__ import annotations

from probe.measure import (
    attention,
    drift,
    effects,
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
    *effects.METRICS,
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


def as_markdown() -> str:
    """The reference of all metrics, as committed in docs/metrics.md."""
    lines = [
        "# Metrics and contracts",
        "",
        "Generated from the definitions in `probe/measure/`: `python -m probe.catalogue`.",
        "A contract is a metric whose healthy value is known exactly, whatever the model.",
        "A residual is a relative error. What cannot be measured is absent (NaN), never 0.",
    ]
    nodes = dict.fromkeys(", ".join(metric.nodes) for metric in METRICS)
    for node in nodes:
        lines += [
            "",
            f"## {node}",
            "",
            "| metric | unit | meaning | healthy | |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| `{m.name}` | {m.unit} | {m.meaning} | {m.healthy} "
            f"| {'contract' if m.contract else m.form} |"
            for m in METRICS
            if ", ".join(m.nodes) == node
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
