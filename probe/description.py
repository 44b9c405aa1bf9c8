"""The anatomy in words: what travels in the header, sites in order of the data flow."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any, Literal

from torch import nn

from probe.anatomy import LayerParts, ModelParts, Stack, stacked, written_class
from probe.nodes import of_cross
from probe.schema import Anatomy, Site


@lru_cache(maxsize=512)  # finding a class parses its whole file, about 30 ms
def _source(kind: type[nn.Module]) -> str:
    try:
        file = inspect.getsourcefile(kind) or ""
        return f"{file}:{inspect.getsourcelines(kind)[1]}"
    except (OSError, TypeError):
        return ""


def _where(module: nn.Module | None) -> str:
    if module is None:
        return ""
    kind: Any = written_class(module)  # mypy takes a class of modules for unhashable
    return _source(kind)


def describe(parts: ModelParts) -> Anatomy:
    """The anatomy that travels in the header."""
    intent = parts.intent
    return Anatomy(
        model=written_class(parts.root).__name__,
        kind=_kind(parts),
        layers=len(parts.layers),
        width=intent.width or (parts.token_embedding.embedding_dim if parts.token_embedding else 0),
        heads=intent.heads or parts.heads_seen,
        kv_heads=intent.kv_heads or parts.kv_heads_seen,
        head_dim=intent.head_dim or parts.head_dim_seen,
        vocabulary=parts.token_embedding.num_embeddings if parts.token_embedding else 0,
        parameters=sum(p.numel() for p in parts.root.parameters()),
        norm_order=parts.norm_order,
        positions=positions_of(parts),
        sites=tuple(_sites(parts)),
    )


def _kind(parts: ModelParts) -> Literal["encoder", "decoder", "encoder-decoder", "unknown"]:
    if parts.coded:
        return "encoder-decoder"
    causal = parts.intent.causal
    return "unknown" if causal is None else "decoder" if causal else "encoder"


def positions_of(
    parts: ModelParts,
) -> Literal["learned", "rotary", "relative", "none", "unknown"]:
    """How the model tells positions apart, as far as it can be seen."""
    if parts.intent.rotary_theta is not None:
        return "rotary"
    if parts.position_embedding is not None:
        return "learned"
    return "relative" if parts.relative else "unknown"


def _site(
    parts: ModelParts, node: str, stack: str, layer: int | None, *modules: nn.Module | None
) -> Site:
    known = [m for m in modules if m is not None]
    name = stacked(stack, node) if layer is None else f"{stacked(stack, node)}@{layer}"
    paths = tuple(parts.paths.get(m, "") for m in known)
    return Site(name, node, layer, stack, paths, _where(known[0] if known else None))


def _sites(parts: ModelParts) -> list[Site]:
    sites = [_site(parts, "embedding", "", None, parts.token_embedding)]
    if positions_of(parts) != "unknown":
        tables = [layer.relative_bias for layer in parts.layers]
        sites.append(_site(parts, "positional", "", None, parts.position_embedding, *tables))
    for stack in parts.stacks:
        sites += _of_stack(parts, stack)
    sites.append(_site(parts, "output", "", None, parts.head))
    return [*sites, _site(parts, "training", "", None), _site(parts, "validation", "", None)]


def _of_attention(parts: ModelParts, part: LayerParts, cached: bool) -> list[Site]:
    """Of a layer's own attention, or its second one: that keeps no growing cache."""
    sites: list[Site] = []

    def add(node: str, *modules: nn.Module | None) -> None:
        node = of_cross(node) if part.crossing else node
        sites.append(_site(parts, node, part.stack, part.index, *modules))

    if part.attention is not None:
        qkv = [m for m in (part.fused, part.query, part.key, part.value) if m is not None]
        add("qkv", part.attention, *qkv)
        for node in ("score", "mask", "attention"):
            add(node, part.attention, part.attention_out)
        if cached and not part.crossing:
            add("kv_cache", part.attention)
        add("residual_attention", part.block, part.attention_dropout)
    if part.norm_attention is not None:
        add("norm_attention", part.norm_attention)
    return sites


def _of_stack(parts: ModelParts, stack: Stack) -> list[Site]:
    sites: list[Site] = []

    def add(node: str, layer: int | None, *modules: nn.Module | None) -> None:
        sites.append(_site(parts, node, stack.name, layer, *modules))

    for part in stack.layers:
        at = part.index
        for attending in part.attentions:
            sites += _of_attention(parts, attending, cached=bool(stack.causal))
        if part.router is not None:
            add("router", at, part.router)
        if part.ffn is not None:
            add("ffn", at, part.ffn, part.gate, part.expand, part.contract)
            add("residual_ffn", at, part.block, part.ffn_dropout)
        if part.norm_ffn is not None:
            add("norm_ffn", at, part.norm_ffn)
        if at:
            add("drift", at, part.block)
    if stack.norm_final is not None:
        add("norm_final", None, stack.norm_final)
    return sites
