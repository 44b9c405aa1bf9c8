"""All metric definitions, gathered from the files that compute them."""

from __future__ import annotations

from collections.abc import Mapping

from probe.facts import FACTS, INITIAL
from probe.heads import head_site
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
    router,
    score,
    training,
)
from probe.nodes import CROSS, kind_of
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
    *router.METRICS,
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
        if kind_of(site.node) in metric.nodes
    )


MAX_HEAD_COLUMNS = 16384
"""Of a model with more, only whole layers are told: a frame must stay small."""


def head_columns(
    sites: tuple[Site, ...], heads: Mapping[tuple[str, int], int]
) -> tuple[Column, ...]:
    """The metrics that heads have, of one site and metric together, head after head.

    ``heads``: how many by stack and layer. Empty where they are more than
    :data:`MAX_HEAD_COLUMNS`.
    """
    found = tuple(
        Column(head_site(site.name, head), metric.name)
        for site in sites
        if site.layer is not None
        for metric in METRICS
        if metric.per_head and kind_of(site.node) in metric.nodes
        for head in range(heads.get((site.stack, site.layer), 0))
    )
    return found if len(found) <= MAX_HEAD_COLUMNS else ()


def as_markdown() -> str:
    """The reference of all metrics, as committed in docs/metrics.md."""
    lines = [
        "# Metrics and contracts",
        "",
        "Generated from the definitions in `probe/measure/`: `python -m probe.catalogue`.",
        "A contract is a metric whose healthy value is known exactly, whatever the model.",
        "A residual is a relative error. What cannot be measured is absent (NaN), never 0.",
        "What heads have too is measured at each, at sites such as `attention@2.h5`.",
        "Attention over the encoder's states has the same metrics under names of its own:",
        ", ".join(f"`{node}` those of {like}" for node, like in CROSS.items()) + ".",
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
            f"| {'contract' if m.contract else m.form}{', per head' if m.per_head else ''} |"
            for m in METRICS
            if ", ".join(m.nodes) == node
        ]
    lines += [
        "",
        "## Facts",
        "",
        "Told once, in words, when the first forward of a run was seen: in the header, by",
        "`defaultpp-monitor doctor --model` and in the monitor's help.",
        "",
        "| fact | meaning |",
        "|---|---|",
        *(f"| {fact.name} | {fact.meaning} |" for fact in FACTS),
        f"| {INITIAL[0]} | {INITIAL[1]} |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
