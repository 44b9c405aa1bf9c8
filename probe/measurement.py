"""From what a sample captured to named values: ``site/metric`` -> a 0-d tensor or a float."""

from __future__ import annotations

import statistics

import torch

from probe.anatomy import ModelParts
from probe.capture import Capture
from probe.measure import (
    attention,
    drift,
    embedding,
    ffn,
    mask,
    norm,
    output,
    positional,
    qkv,
    residual,
    score,
)
from probe.measure.sampled import Projections, Values, prepare, projections


def measure_forward(
    parts: ModelParts, capture: Capture
) -> tuple[dict[str, Values], dict[int, torch.Tensor]]:
    """All forward metrics by site, and per layer the gram matrix the effective rank comes from."""
    sampled = prepare(parts, capture)
    found: dict[str, Values] = {"embedding": embedding.measure(sampled)}
    made: dict[int, Projections] = {}
    grams: dict[int, torch.Tensor] = {}
    feed_forward: dict[int, Values] = {}
    eps = [value for layer in parts.layers for n in layer.norms if (value := norm.eps_of(n))]
    peers_eps = statistics.median(eps) if eps else None
    for layer, kept in zip(parts.layers, capture.layers, strict=True):
        at = layer.index
        projected = projections(layer, kept)
        if projected is not None:
            made[at] = projected
        found[f"qkv@{at}"] = qkv.measure(sampled, kept, projected)
        found[f"score@{at}"] = score.measure(sampled, kept, projected)
        found[f"mask@{at}"] = mask.measure(sampled, kept)
        found[f"attention@{at}"] = attention.measure(sampled, kept, projected)
        gram = attention.gram(kept)
        if gram is not None:
            grams[at] = gram
        for node, junction in residual.junctions(kept, parts.norm_order).items():
            found[f"{node}@{at}"] = residual.measure(sampled, junction)
        for node in ("norm_attention", "norm_ffn"):
            module = getattr(layer, node)
            if module is not None:
                flow = getattr(kept, node)
                found[f"{node}@{at}"] = norm.measure(sampled, module, flow, peers_eps)
        if layer.expand is not None and layer.contract is not None:
            feed_forward[at] = found[f"ffn@{at}"] = ffn.measure(sampled, layer, kept)
        if at:
            found[f"drift@{at}"] = drift.measure(sampled, capture.layers[at - 1], kept)
    ffn.against_peers(feed_forward)
    qkv.against_peers({at: found[f"qkv@{at}"] for at in made})
    if parts.norm_final is not None:
        found["norm_final"] = norm.measure(sampled, parts.norm_final, capture.norm_final, peers_eps)
    norm.against_peers({site: v for site, v in found.items() if site.startswith("norm_")})
    found["positional"] = positional.measure(sampled, made)
    found["output"] = output.measure(sampled)
    return found, grams
