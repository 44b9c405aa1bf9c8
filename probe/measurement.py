"""From what a sample captured to named values: ``site/metric`` -> a 0-d tensor or a float."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace

import torch

from probe.anatomy import ModelParts, Stack
from probe.captured import Capture
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
    router,
    score,
)
from probe.measure.sampled import (
    Projections,
    Sampled,
    Values,
    eps_of,
    over_memory,
    prepare,
    projections,
)


@dataclass
class Measurement:
    """What one forward gave, by site. ``values``: of whole components; ``heads``: (h,) of the
    heads of a site; ``grams``: (h, p, p), which the effective rank comes from."""

    values: dict[str, Values] = field(default_factory=dict)
    heads: dict[str, Values] = field(default_factory=dict)
    grams: dict[str, torch.Tensor] = field(default_factory=dict)


def measure_forward(parts: ModelParts, capture: Capture) -> Measurement:
    """All metrics of a forward."""
    stacks = prepare(parts, capture, counted=True)
    measured = Measurement()
    found = measured.values
    table = parts.token_embedding
    owner = parts.stack_of(table) if table is not None else ""
    first = parts.main.name if parts.main is not None else ""
    reading = next((s for s in stacks if s.stack.name == (owner or first)), stacks[0])
    if capture.reads_beside:
        reading = replace(reading, picked=capture.picked, batch=capture.batch)
    found["embedding"] = embedding.measure(reading)
    for sampled in stacks:
        made = _stack(sampled, measured, _peers_eps(parts, sampled.stack))
        if not sampled.stack.name:
            found["positional"] = positional.measure(sampled, made)
    if "positional" not in found:
        found["positional"] = positional.measure(reading, {})
    for site, module in parts.final_norms:
        last = next(s for s in stacks if s.stack.final_site == site)
        peers_eps = _peers_eps(parts, last.stack)
        found[site] = norm.measure(last, module, capture.final_norms.get(site), peers_eps)
    norms = {site: v for site, v in found.items() if "norm_" in site.split("@")[0]}
    aside = {s.name for s in parts.stacks if s.intent is not None}
    for name in aside:
        norm.against_peers({s: v for s, v in norms.items() if s.partition(".")[0] == name})
    norm.against_peers({s: v for s, v in norms.items() if s.partition(".")[0] not in aside})
    for layer in parts.layers:
        routed = capture.routing.get(layer.site("router"))
        if layer.router is not None and routed is not None:
            found[layer.site("router")] = router.measure(parts, layer.router, routed)
    found["output"] = output.measure(stacks[-1])
    return measured


def _peers_eps(parts: ModelParts, stack: Stack) -> float | None:
    """The median of the norms' eps in a stack that has a config of its own, else in the rest."""
    layers = [layer for s in parts.stacks if s.intent is stack.intent for layer in s.layers]
    own = {id(n): n for layer in layers for n in layer.norms}
    eps = [value for n in own.values() if (value := eps_of(n))]
    return statistics.median(eps) if eps else None


def _stack(
    sampled: Sampled, measured: Measurement, peers_eps: float | None
) -> dict[int, Projections]:
    """Add the metrics of one stack's sites; returns q, k, v by layer."""
    layers, found = sampled.stack.layers, measured.values
    feed_forward: dict[int, Values] = {}
    made = _attentions(sampled, measured, peers_eps)
    memory = over_memory(sampled)
    if memory is not None:
        _attentions(memory, measured, peers_eps)
    for layer, kept in zip(layers, sampled.kept, strict=True):
        at, site = layer.index, layer.site
        if layer.expand is not None and layer.contract is not None:
            feed_forward[at] = found[site("ffn")] = ffn.measure(sampled, layer, kept)
        if at:
            found[site("drift")] = drift.measure(sampled, sampled.kept[at - 1], kept)
    ffn.against_peers(feed_forward)
    ffn.against_fitting_activation(sampled, feed_forward)
    return made


def _attentions(
    sampled: Sampled, measured: Measurement, peers_eps: float | None
) -> dict[int, Projections]:
    """The sites of one attention of a stack's layers, with the norms and sums around it."""
    parts, found, heads = sampled.parts, measured.values, measured.heads
    made: dict[int, Projections] = {}
    of_layers: dict[int, Values] = {}
    dropouts = attention.intended_dropout(sampled)
    adds_one = norm.adds_one(sampled)
    for layer, kept in zip(sampled.stack.layers, sampled.kept, strict=True):
        at, site = layer.index, layer.site
        projected = projections(
            layer,
            kept,
            adds_one=adds_one,
            unstated=not parts.intent.family,
            may_norm=not parts.intent.family or parts.intent.norms_heads,
        )
        for node, (whole, by_head) in {
            "qkv": qkv.measure(sampled, layer, kept, projected),
            "score": score.measure(sampled, kept, projected),
            "mask": mask.measure(sampled, kept, at),
            "attention": attention.measure(sampled, layer, kept, projected, dropouts),
        }.items():
            found[site(node)], heads[site(node)] = whole, by_head
        if projected is not None:
            made[at], of_layers[at] = projected, found[site("qkv")]
        gram = attention.gram(kept)
        if gram is not None:
            measured.grams[site("attention")] = gram
        for node in ("norm_attention", "norm_ffn"):
            module = getattr(layer, node)
            if module is not None:
                flow = getattr(kept, node)
                found[site(node)] = norm.measure(sampled, module, flow, peers_eps)
    found |= residual.of_stack(sampled)
    qkv.against_peers(sampled, of_layers)
    scores = [found[layer.site("score")] for layer in sampled.stack.layers]
    score.against_peers(sampled.kept, scores)
    return made
