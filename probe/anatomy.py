"""Finds the components of a transformer in its module tree.

Nothing here lists model families: blocks are the repeated children of a module list, attention is
the module that owns projections named for q, k and v (or one fused projection), the feed-forward
block is what other linears the block owns. Which norm comes before what is settled by the order of
calls in the first observed forward (:meth:`ModelParts.settle`).
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import nn

from probe.intent import Intent, read_intent
from probe.schema import Anatomy, Site

_QUERY = re.compile(r"^(q|query|q_proj|q_lin|wq|to_q|query_proj|c_q|q_linear)$")
_KEY = re.compile(r"^(k|key|k_proj|k_lin|wk|to_k|key_proj|c_k|k_linear)$")
_VALUE = re.compile(r"^(v|value|v_proj|v_lin|wv|to_v|value_proj|c_v|v_linear)$")
_FUSED = re.compile(
    r"^(c_attn|qkv|qkv_proj|wqkv|in_proj|query_key_value|c_qkv|to_qkv|attn_qkv)$", re.I
)
_OUT = re.compile(r"^(o|o_proj|out_proj|c_proj|out_lin|wo|to_out|proj|dense|out|output_proj)$")
_GATE = re.compile(r"^(gate_proj|w1|gate|wi_0)$")
_UP = re.compile(r"^(up_proj|w3|up|wi_1)$")
_POSITION = re.compile(r"(position|wpe|pos_emb|pos_embed)")
_TYPE = re.compile(r"(token_type|segment)")


@dataclass
class LayerParts:
    """The modules of one block. None where a block has no such part."""

    index: int
    block: nn.Module
    attention: nn.Module | None = None
    query: nn.Module | None = None
    key: nn.Module | None = None
    value: nn.Module | None = None
    fused: nn.Module | None = None
    attention_out: nn.Module | None = None
    attention_dropout: nn.Module | None = None
    """Dropout on the attention branch before it joins the stream."""
    ffn: nn.Module | None = None
    gate: nn.Module | None = None
    expand: nn.Module | None = None
    contract: nn.Module | None = None
    ffn_dropout: nn.Module | None = None
    norms: list[nn.Module] = field(default_factory=list)
    norm_attention: nn.Module | None = None
    norm_ffn: nn.Module | None = None


@dataclass
class ModelParts:
    """Where every component lives. ``paths`` maps a module to its path from the root."""

    root: nn.Module
    intent: Intent
    layers: list[LayerParts]
    paths: dict[nn.Module, str]
    token_embedding: nn.Embedding | None = None
    position_embedding: nn.Embedding | None = None
    type_embedding: nn.Embedding | None = None
    embedding_norm: nn.Module | None = None
    embedding_dropout: nn.Module | None = None
    outer_norms: list[nn.Module] = field(default_factory=list)
    norm_final: nn.Module | None = None
    head: nn.Module | None = None
    norm_order: Literal["pre", "post", "unknown"] = "unknown"
    settled: bool = False
    """Whether a forward was seen, which tells the roles of the norms."""

    def settle(self, order: list[nn.Module]) -> None:
        """Give the norms their roles from the order in which modules were first called."""
        self.settled = True
        rank = {module: position for position, module in reversed(list(enumerate(order)))}
        for layer in self.layers:
            called = sorted((norm for norm in layer.norms if norm in rank), key=rank.__getitem__)
            attention = rank.get(layer.attention) if layer.attention is not None else None
            if len(called) >= 2 and attention is not None:
                layer.norm_attention, layer.norm_ffn = called[0], called[-1]
                self.norm_order = "pre" if rank[called[0]] < attention else "post"
            elif len(called) == 1:
                layer.norm_attention = called[0]
        if self.layers and self.norm_order == "pre":
            last = rank.get(self.layers[-1].block)
            after = [m for m in self.outer_norms if last is not None and rank.get(m, -1) > last]
            self.norm_final = min(after, key=rank.__getitem__) if after else None
        first = rank.get(self.layers[0].block) if self.layers else None
        before = [m for m in self.outer_norms if first is not None and rank.get(m, first) < first]
        self.embedding_norm = before[0] if before else None


def is_linear(module: nn.Module) -> bool:
    """``nn.Linear`` or GPT-2's transposed ``Conv1D`` (recognised by name: no transformers here)."""
    return isinstance(module, nn.Linear) or (
        type(module).__name__ == "Conv1D" and getattr(module, "weight", torch.empty(0)).dim() == 2
    )


def weight_of(linear: nn.Module) -> torch.Tensor:
    """Weight as (out features, in features), whatever the layout; a view, never a copy."""
    weight: torch.Tensor = linear.weight  # type: ignore[assignment]
    return weight.t() if type(linear).__name__ == "Conv1D" else weight


def is_norm(module: nn.Module) -> bool:
    """LayerNorm and RMSNorm in all their spellings: "norm" in the name, a 1-d weight."""
    weight = getattr(module, "weight", None)
    return (
        "norm" in type(module).__name__.lower()
        and isinstance(weight, torch.Tensor)
        and weight.dim() == 1
    )


def unwrap(model: nn.Module) -> nn.Module:
    """The module a person wrote, below DDP and torch.compile wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def find(model: nn.Module) -> ModelParts:
    """Look through ``model``. Parts that are not recognised stay None; nothing is guessed twice."""
    root = unwrap(model)
    paths = {module: path for path, module in root.named_modules()}
    blocks = _blocks(root)
    layers = [_layer(index, block) for index, block in enumerate(blocks)]
    parts = ModelParts(root, read_intent(root), layers, paths)
    inside = {module for block in blocks for module in block.modules()}
    outside = [module for module in root.modules() if module not in inside]
    parts.outer_norms = [module for module in outside if is_norm(module)]
    _embeddings(parts, outside)
    parts.head = _head(parts, outside)
    return parts


def _blocks(root: nn.Module) -> list[nn.Module]:
    """The longest list of like children that hold attention or at least two linears."""
    best: list[nn.Module] = []
    for module in root.modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)):
            continue
        children = list(module)
        kinds = Counter(type(child) for child in children)
        if not kinds:
            continue
        kind, count = kinds.most_common(1)[0]
        chosen = [child for child in children if type(child) is kind]
        linears = sum(is_linear(part) for part in chosen[0].modules())
        size = sum(p.numel() for child in chosen for p in child.parameters())
        if linears >= 2 and not is_linear(chosen[0]):
            best_size = sum(p.numel() for child in best for p in child.parameters())
            if size > best_size and (count > 1 or not best):
                best = chosen
    return best


def _layer(index: int, block: nn.Module) -> LayerParts:
    layer = LayerParts(index, block)
    for module in block.modules():
        names = {name: child for name, child in module.named_children() if is_linear(child)}
        query = next((c for n, c in names.items() if _QUERY.match(n)), None)
        key = next((c for n, c in names.items() if _KEY.match(n)), None)
        value = next((c for n, c in names.items() if _VALUE.match(n)), None)
        fused = next((c for n, c in names.items() if _FUSED.match(n)), None)
        if (query and key and value) or fused:
            layer.attention, layer.fused = module, fused
            if not fused:
                layer.query, layer.key, layer.value = query, key, value
            layer.attention_out = next((c for n, c in names.items() if _OUT.match(n)), None)
            break
    _find_ffn(layer)
    inside_attention = set(layer.attention.modules()) if layer.attention is not None else set()
    layer.norms = [m for m in block.modules() if is_norm(m) and m not in inside_attention]
    layer.attention_dropout = _branch_dropout(block, layer.attention_out)
    layer.ffn_dropout = _branch_dropout(block, layer.contract)
    return layer


def _find_ffn(layer: LayerParts) -> None:
    own = {layer.query, layer.key, layer.value, layer.fused, layer.attention_out}
    rest = [(name, m) for name, m in layer.block.named_modules() if is_linear(m) and m not in own]
    if layer.attention is not None and layer.attention_out is None and rest:
        # BERT keeps the output projection beside the attention module, not in it.
        name, module = rest[0]
        if "attention" in name and weight_of(module).shape[0] == weight_of(module).shape[1]:
            layer.attention_out = module
            rest = rest[1:]
    for name, module in rest:
        leaf = name.rsplit(".", 1)[-1]
        if _GATE.match(leaf):
            layer.gate = module
        elif _UP.match(leaf):
            layer.expand = module
    others = [m for _, m in rest if m is not layer.gate and m is not layer.expand]
    if layer.gate is None or layer.expand is None:
        layer.gate = None
        others = [m for _, m in rest]
        layer.expand = others[0] if len(others) >= 2 else None
    layer.contract = others[-1] if layer.expand is not None and others else None
    if layer.contract is not None:
        layer.ffn = _owner(layer.block, layer.contract)


def _owner(block: nn.Module, child: nn.Module) -> nn.Module:
    return next((m for m in block.modules() if any(c is child for c in m.children())), block)


def _branch_dropout(block: nn.Module, projection: nn.Module | None) -> nn.Module | None:
    """The dropout that follows ``projection`` among its siblings, if there is exactly one after."""
    if projection is None:
        return None
    owner = _owner(block, projection)
    children = list(owner.children())
    after = children[[c is projection for c in children].index(True) + 1 :]
    drops = [c for c in after if isinstance(c, nn.Dropout)]
    return drops[-1] if drops else None


def _embeddings(parts: ModelParts, outside: list[nn.Module]) -> None:
    tables = [m for m in outside if isinstance(m, nn.Embedding)]
    for table in tables:
        path = parts.paths[table].lower()
        if _POSITION.search(path):
            parts.position_embedding = parts.position_embedding or table
        elif _TYPE.search(path):
            parts.type_embedding = parts.type_embedding or table
        elif parts.token_embedding is None:
            parts.token_embedding = table
    if parts.token_embedding is not None:
        owner = _owner(parts.root, parts.token_embedding)
        drops = [c for c in owner.children() if isinstance(c, nn.Dropout)]
        parts.embedding_dropout = drops[0] if drops else None


def _head(parts: ModelParts, outside: list[nn.Module]) -> nn.Module | None:
    linears = [m for m in outside if is_linear(m)]
    if not linears:
        return None
    classes = parts.intent.classes
    fitting = [m for m in linears if classes and weight_of(m).shape[0] == classes]
    named = [
        m for m in linears if re.search(r"(lm_head|decoder|score|classifier)$", parts.paths[m])
    ]
    return (fitting or named or linears)[-1]


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
    kind: Any = type(module)  # mypy takes a class of modules for unhashable
    return _source(kind)


def describe(parts: ModelParts) -> Anatomy:
    """The anatomy that travels in the header, sites in order of the data flow."""
    sites = tuple(_sites(parts))
    intent = parts.intent
    return Anatomy(
        model=type(parts.root).__name__,
        kind="unknown" if intent.causal is None else "decoder" if intent.causal else "encoder",
        layers=len(parts.layers),
        width=intent.width or (parts.token_embedding.embedding_dim if parts.token_embedding else 0),
        heads=intent.heads or 0,
        kv_heads=intent.kv_heads or 0,
        head_dim=intent.head_dim or 0,
        vocabulary=parts.token_embedding.num_embeddings if parts.token_embedding else 0,
        parameters=sum(p.numel() for p in parts.root.parameters()),
        norm_order=parts.norm_order,
        positions=_positions(parts),
        sites=sites,
    )


def _positions(parts: ModelParts) -> Literal["learned", "rotary", "unknown"]:
    if parts.intent.rotary_theta is not None:
        return "rotary"
    return "learned" if parts.position_embedding is not None else "unknown"


def _sites(parts: ModelParts) -> list[Site]:
    def site(node: str, layer: int | None, *modules: nn.Module | None) -> Site:
        known = [m for m in modules if m is not None]
        name = node if layer is None else f"{node}@{layer}"
        paths = tuple(parts.paths.get(m, "") for m in known)
        return Site(name, node, layer, "", paths, _where(known[0] if known else None))

    sites = [site("embedding", None, parts.token_embedding)]
    if _positions(parts) != "unknown":
        sites.append(site("positional", None, parts.position_embedding))
    for part in parts.layers:
        at = part.index
        if part.attention is not None:
            qkv = [m for m in (part.fused, part.query, part.key, part.value) if m is not None]
            sites.append(site("qkv", at, part.attention, *qkv))
            for node in ("score", "mask", "attention"):
                sites.append(site(node, at, part.attention, part.attention_out))
            if parts.intent.causal:
                sites.append(site("kv_cache", at, part.attention))
            sites.append(site("residual_attention", at, part.block, part.attention_dropout))
        if part.norm_attention is not None:
            sites.append(site("norm_attention", at, part.norm_attention))
        if part.ffn is not None:
            sites.append(site("ffn", at, part.ffn, part.gate, part.expand, part.contract))
            sites.append(site("residual_ffn", at, part.block, part.ffn_dropout))
        if part.norm_ffn is not None:
            sites.append(site("norm_ffn", at, part.norm_ffn))
        if at:
            sites.append(site("drift", at, part.block))
    if parts.norm_final is not None:
        sites.append(site("norm_final", None, parts.norm_final))
    sites.append(site("output", None, parts.head))
    sites.extend([site("training", None), site("validation", None)])
    return sites
