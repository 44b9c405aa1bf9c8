"""Finds the components of a transformer in its module tree.

Nothing here lists model families: blocks are the repeated children of a module list, attention is
the module that owns projections named for q, k and v (one fused projection, or torch's packed
parameter), the feed-forward block is what other linears the block owns. Which norm comes before
what, and where a branch ends, is settled by the first observed forward (:mod:`probe.settling`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import nn

from probe.adapters import adds_to_loss, is_adapted_linear, parts_within
from probe.habits import Habits
from probe.intent import Intent, read_config, read_intent, states_tie
from probe.nodes import of_cross
from probe.recognition import (
    attentions_of,
    experts_of,
    is_linear,
    is_norm,
    is_packed,
    is_state_space,
    projections_of,
    query_beside,
    unwrap,
    weight_of,
)
from probe.routing import adds_balance_to_loss, router_of
from probe.stacks import Blocks, lists_of_blocks

_OUT = re.compile(
    r"^(o|o_proj|out_proj|c_proj|out_lin|wo|to_out|proj|dense|out|output_proj)$", re.I
)
_GATE = re.compile(r"^(gate_proj|w1|gate|wi_0)$")
_UP = re.compile(r"^(up_proj|w3|up|wi_1)$")
_POSITION = re.compile(r"(position|wpe|pos_emb|pos_embed|(^|[._])(pos|pe)$)")
_TYPE = re.compile(r"(token_type|segment)")
_NORM = r"(n|ln|norm|layer_?norm|rms_?norm)"
_QUERY_NORM = re.compile(rf"^(q|query)_?{_NORM}$|^{_NORM}_?(q|query)$")
_KEY_NORM = re.compile(rf"^(k|key)_?{_NORM}$|^{_NORM}_?(k|key)$")


@dataclass
class LayerParts:
    """The modules of one block. None where a block has no such part."""

    index: int
    block: nn.Module
    turn: int = 0
    """Which call of the block this is, where one block stands for several layers."""
    stack: str = ""
    """``encoder`` or ``decoder`` where a model has both, ``vision`` or ``audio`` beside a language
    model, else empty."""
    attention: nn.Module | None = None
    query: nn.Module | None = None
    key: nn.Module | None = None
    value: nn.Module | None = None
    fused: nn.Module | None = None
    packed: nn.Module | None = None
    """The attention module where q, k and v are one parameter of it, as in torch's own."""
    per_head: bool = False
    """Every head is a module of its own: its calls are not taken for calls of the layer."""
    query_norm: nn.Module | None = None
    key_norm: nn.Module | None = None
    attention_out: nn.Module | None = None
    attention_dropout: nn.Module | None = None
    """Dropout on the attention branch before it joins the stream."""
    attention_outlet: nn.Module | None = None
    """What the attention branch leaves last, where a hand-written module adds to it in between."""
    unseen: bool = False
    """Attention runs in a compiled function, which looking inside would compile anew."""
    cross: LayerParts | None = None
    """A second attention, over another stack's states, as a layer of its own in the same block."""
    crossing: bool = False
    """This is such a second attention: its sites are ``cross_qkv``, ``norm_cross`` and so on."""
    norm_before: nn.Module | None = None
    """Of a second attention: the norm that ran last before it."""
    relative_bias: nn.Module | None = None
    """Table of biases by distance, one column per head."""
    ffn: nn.Module | None = None
    experts: nn.Module | None = None
    """The feed-forward part where it is a choice of several, which is seen as a whole."""
    router: nn.Module | None = None
    """What chooses among them: its weights have a row for each."""
    gate: nn.Module | None = None
    expand: nn.Module | None = None
    contract: nn.Module | None = None
    inner_dropout: nn.Module | None = None
    """Dropout between the activation and the contracting linear."""
    ffn_dropout: nn.Module | None = None
    ffn_outlet: nn.Module | None = None
    strays: list[nn.Module] = field(default_factory=list)
    """Linears with adapters that have no role: what trains them should be used all the same."""
    norms: list[nn.Module] = field(default_factory=list)
    norm_attention: nn.Module | None = None
    norm_ffn: nn.Module | None = None
    norm_next: nn.Module | None = None
    """The norm that first reads the stream after the attention branch joined it."""
    norm_before_ffn: nn.Module | None = None
    """The norm that ran last before the feed-forward block; none that stands on a branch."""
    attention_last: nn.Module | None = None
    """Where a norm stands on the attention branch, behind its projection: that norm, or the
    dropout behind it."""
    ffn_last: nn.Module | None = None
    scales: list[nn.Parameter] = field(default_factory=list)
    """Vectors of the block, or of parts that hold nothing else, that may scale a branch channel by
    channel before it joins the stream."""
    plain_sums: bool = True
    """Stream + branch is the next stream, one branch after the other."""

    def site(self, node: str) -> str:
        """Name of this layer's site of ``node``, e.g. ``decoder.mask@0``."""
        node = of_cross(node) if self.crossing else node
        return f"{stacked(self.stack, node)}@{self.index}"

    @property
    def attentions(self) -> tuple[LayerParts, ...]:
        """Itself, and after it its second attention, where it has one."""
        return (self,) if self.cross is None else (self, self.cross)

    def exchange(self) -> None:
        """The second attention is the block's own, and its own the second one."""
        for name in _OF_ATTENTION if self.cross is not None else ():
            own = getattr(self, name)
            setattr(self, name, getattr(self.cross, name))
            setattr(self.cross, name, own)

    def as_turn(self, index: int, turn: int) -> LayerParts:
        """The same modules as another layer: one more call of the block."""
        cross = self.cross and replace(self.cross, index=index, turn=turn)
        return replace(self, index=index, turn=turn, cross=cross)


_OF_ATTENTION = (
    "attention", "query", "key", "value", "fused", "packed", "query_norm", "key_norm",
    "attention_out", "relative_bias", "unseen",
)  # fmt: skip


def stacked(stack: str, node: str) -> str:
    """``node`` with the stack's name before it, where there is one."""
    return f"{stack}.{node}" if stack else node


@dataclass
class Stack:
    """Blocks one after the other. ``causal``: as stated, None where nothing states it."""

    name: str
    layers: list[LayerParts]
    causal: bool | None
    norm_final: nn.Module | None = None
    intent: Intent | None = None
    """Where a stack has a config of its own, as beside a language model; else the model's."""

    @property
    def final_site(self) -> str:
        return stacked(self.name, "norm_final")


@dataclass
class ModelParts:
    """Where every component lives. ``paths`` maps a module to its path from the root."""

    root: nn.Module
    intent: Intent
    stacks: list[Stack]
    paths: dict[nn.Module, str]
    token_embedding: nn.Embedding | None = None
    position_embedding: nn.Embedding | None = None
    type_embedding: nn.Embedding | None = None
    tables: list[nn.Embedding] = field(default_factory=list)
    """Every embedding outside the blocks."""
    embedding_norm: nn.Module | None = None
    embedding_dropout: nn.Module | None = None
    outer_norms: list[nn.Module] = field(default_factory=list)
    head: nn.Module | None = None
    outer_linears: list[nn.Module] = field(default_factory=list)
    norm_order: Literal["pre", "post", "unknown"] = "unknown"
    settled: bool = False
    """Whether a forward was seen, which tells the roles of the norms."""
    fixed: frozenset[str] = frozenset()
    """Roles that the user named, which nothing observed changes."""
    sequence_first: bool = False
    """Hidden states are (length, batch, width), as torch's own modules take them by default."""
    ids_sequence_first: bool = False
    """The token ids are (length, batch) too."""
    begun: dict[str, torch.Tensor] = field(default_factory=dict)
    """By site and metric, what the first sample told of weights as they were made, 0-d."""
    habits: Habits = field(default_factory=Habits)
    """What the first samples of a model without a config did alike."""
    heads_seen: int = 0
    kv_heads_seen: int = 0
    head_dim_seen: int = 0

    @property
    def layers(self) -> list[LayerParts]:
        """The layers of all stacks, in the order of the data flow."""
        return [layer for stack in self.stacks for layer in stack.layers]

    @property
    def attentions(self) -> list[LayerParts]:
        """The same, each followed by its second attention, where it has one."""
        return [part for layer in self.layers for part in layer.attentions]

    @property
    def main(self) -> Stack | None:
        """The stack that reads the token embedding first."""
        return next((s for s in self.stacks if s.name in ("", "encoder")), None)

    @property
    def coded(self) -> bool:
        """An encoder and a decoder."""
        return any(stack.name == "decoder" for stack in self.stacks)

    @property
    def final_norms(self) -> list[tuple[str, nn.Module]]:
        """The norm after each stack, by site."""
        return [(s.final_site, s.norm_final) for s in self.stacks if s.norm_final is not None]

    def stack_of(self, module: nn.Module) -> str:
        """Name of the stack that ``module`` stands in or beside; empty where that is all one."""
        path = self.paths.get(module, "")
        firsts = [self.paths.get(s.layers[0].block, "") if s.layers else "" for s in self.stacks]
        for stack, first in zip(self.stacks, firsts, strict=True):
            others = [other for other in firsts if other != first]
            if stack.name and others and path.startswith(f"{_apart(first, others[0])}."):
                return stack.name
        return ""

    @property
    def relative(self) -> bool:
        """Some layer owns a table of relative positions."""
        return any(layer.relative_bias is not None for layer in self.layers)


def _apart(path: str, other: str) -> str:
    """The beginning of ``path`` up to where it parts from ``other``."""
    names, others = path.split("."), other.split(".")
    same = next((at for at, pair in enumerate(zip(names, others)) if len(set(pair)) > 1), 0)  # noqa: B905
    return ".".join(names[: same + 1])


def written_class(module: nn.Module) -> type[nn.Module]:
    """The class a person wrote: ``fully_shard`` gives a module a subclass of its own class."""
    kinds = type(module).__mro__
    sharding = next((kind for kind in kinds if kind.__name__ == "FSDPModule"), None)
    return next(k for k in kinds if sharding is None or not issubclass(k, sharding))


def name_of(model: nn.Module) -> str:
    """The name of a run that was given none."""
    return written_class(unwrap(model)).__name__.lower()


def find(model: nn.Module, blocks: nn.Module | None = None) -> ModelParts:
    """Look through ``model``. Parts that are not recognised stay None; nothing is guessed twice.

    ``blocks``: the list of blocks, where it is known.
    """
    root = unwrap(model)
    paths = {module: path for path, module in root.named_modules()}
    lists = [Blocks("", list(blocks.children()))] if blocks is not None else lists_of_blocks(root)
    main = next((found for found in lists if not found.name), None)
    intent = read_intent(root, main.config if main is not None else None)
    if adds_to_loss(model) or adds_balance_to_loss(root):
        intent = replace(intent, shifted_labels=None)
    parts = ModelParts(root, intent, [_stack(found, intent) for found in lists], paths)
    inside = {module for layer in parts.layers for module in layer.block.modules()}
    outside = [module for _, module in parts_within(root) if module not in inside]
    parts.outer_norms = [module for module in outside if is_norm(module)]
    parts.sequence_first = any(
        getattr(layer.packed, "batch_first", True) is False for layer in parts.layers
    )
    _embeddings(parts, outside)
    parts.head = _head(parts, outside)
    if parts.head is not None and intent.family:
        parts.intent = replace(intent, tied=states_tie(root, paths[parts.head]))
    return parts


def _stack(found: Blocks, intent: Intent) -> Stack:
    layers = [_layer(at, unwrap(block), found.name) for at, block in enumerate(found.modules)]
    if found.config is not None and found.name:
        own = read_config(found.config)
        return Stack(found.name, layers, own.causal, intent=own)
    coded = found.name in ("encoder", "decoder")
    return Stack(found.name, layers, found.name == "decoder" if coded else intent.causal)


def _layer(index: int, block: nn.Module, stack: str) -> LayerParts:
    layer = LayerParts(index, block, stack=stack)
    modules, crossing = attentions_of(block)
    if len(modules) > 1:
        layer.per_head = True
        holder = _owner(block, modules[0])
        layer.attention = _owner(block, holder)
    elif modules:
        _project(layer, modules[0])
    _inside_attention(layer)
    if crossing is not None:
        layer.cross = crossed(layer, crossing)
    _find_ffn(layer)
    inside_attention = {m for part in layer.attentions for m in _modules(part.attention)}
    if layer.attention is block:
        inside_attention = {m for m in (layer.query_norm, layer.key_norm) if m is not None}
    elif layer.attention is not None and layer.attention_out is not None:
        # An attention module that ends in the sum and its norm.
        beside = {m for m in layer.attention.children() if is_norm(m)}
        inside_attention -= beside - {layer.query_norm, layer.key_norm}
    layer.norms = [m for m in block.modules() if is_norm(m) and m not in inside_attention]
    if layer.cross is not None:
        layer.cross.norms = layer.norms
    roles = {layer.query, layer.key, layer.value, layer.fused, layer.attention_out, layer.gate}
    roles |= {layer.expand, layer.contract, *(part.attention_out for part in layer.attentions)}
    adapted = [m for _, m in parts_within(block) if is_adapted_linear(m) and m not in roles]
    if layer.cross is not None:
        aside = set(_modules(layer.cross.attention))
        adapted = [m for m in adapted if m not in aside]
    layer.strays = adapted
    for part in layer.attentions:
        part.attention_dropout = branch_dropout(block, part.attention_out)
    layer.ffn_dropout = branch_dropout(block, layer.contract)
    layer.scales = _scales(block)
    return layer


def _scales(block: nn.Module) -> list[nn.Parameter]:
    holders = [block, *(m for m in block.children() if not is_norm(m) and not list(m.children()))]
    own = [list(m.named_parameters(recurse=False)) for m in holders]
    alone = [pairs for m, pairs in zip(holders, own, strict=True) if m is block or len(pairs) == 1]
    return [p for pairs in alone for name, p in pairs if p.dim() == 1 and "bias" not in name]


def crossed(layer: LayerParts, attention: nn.Module) -> LayerParts:
    """``attention`` as the second attention of a layer's block."""
    cross = LayerParts(layer.index, layer.block, layer.turn, layer.stack, crossing=True)
    cross.norms = layer.norms
    _project(cross, attention)
    if cross.fused is not None:
        # One linear for keys and values, or one for all three, of which nothing tells its input.
        cross.query = query_beside(attention)
        cross.fused = cross.fused if cross.query is not None else None
    _inside_attention(cross)
    return cross


def _project(layer: LayerParts, attention: nn.Module) -> None:
    layer.attention = attention
    if is_packed(attention):
        layer.packed = attention
    for kind, module in projections_of(attention).items():
        setattr(layer, kind, module)


def _inside_attention(layer: LayerParts) -> None:
    """The output projection, norms of queries and keys, and biases, by their names."""
    if layer.attention is None:
        return
    children = dict(layer.attention.named_children())
    layer.attention_out = next(
        (c for n, c in children.items() if is_linear(c) and _OUT.match(n)), None
    )
    for name, child in children.items():
        if is_norm(child) and _QUERY_NORM.match(name):
            layer.query_norm = child
        elif is_norm(child) and _KEY_NORM.match(name):
            layer.key_norm = child
        elif isinstance(child, nn.Embedding):
            layer.relative_bias = child


def _modules(module: nn.Module | None) -> list[nn.Module]:
    return list(module.modules()) if module is not None else []


def _find_ffn(layer: LayerParts) -> None:
    own = {layer.query, layer.key, layer.value, layer.fused, layer.attention_out}
    if layer.attention is not layer.block:
        own |= {m for part in layer.attentions for m in _modules(part.attention)}
    layer.experts = experts_of(layer.block)
    if layer.experts is not None:
        layer.ffn = layer.experts
        layer.router = router_of(layer.block)
        return
    own |= {m for mixer in layer.block.modules() if is_state_space(mixer) for m in mixer.modules()}
    rest = [(n, m) for n, m in parts_within(layer.block) if is_linear(m) and m not in own]
    for part in layer.attentions:
        if part.attention is None or part.attention_out is not None or not rest:
            continue
        # BERT keeps the output projection beside the attention module, not in it.
        name, module = rest[0]
        if "attention" in name and weight_of(module).shape[0] == weight_of(module).shape[1]:
            part.attention_out = module
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
        pair = _expanding_and_contracting(others)
        layer.expand = pair[0] if pair else others[0] if len(others) >= 2 else None
        others = others if pair is None else [pair[1]]
    layer.contract = others[-1] if layer.expand is not None and others else None
    if layer.contract is not None:
        layer.ffn = _owner(layer.block, layer.contract)


def _expanding_and_contracting(linears: list[nn.Module]) -> tuple[nn.Module, nn.Module] | None:
    """The last linear that leads back to the width another one before it, the first such, came
    from: a block may hold further linears, as one that makes shifts and scales of a condition."""
    shapes = [weight_of(m).shape for m in linears]
    for last in range(len(linears) - 1, 0, -1):
        for first in range(last):
            into, out = shapes[first][-1], shapes[first][0]
            if shapes[last][0] == into and shapes[last][-1] in (out, out // 2):
                return linears[first], linears[last]
    return None


def _owner(block: nn.Module, child: nn.Module) -> nn.Module:
    return next((m for m in block.modules() if any(c is child for c in m.children())), block)


def branch_dropout(block: nn.Module, projection: nn.Module | None) -> nn.Module | None:
    """The dropout that follows ``projection`` among its siblings, if there is exactly one after."""
    if projection is None:
        return None
    owner = _owner(block, projection)
    children = list(owner.children())
    after = children[[c is projection for c in children].index(True) + 1 :]
    drops = [c for c in after if isinstance(c, nn.Dropout)]
    return drops[-1] if drops else None


def _embeddings(parts: ModelParts, outside: list[nn.Module]) -> None:
    aside = {stack.name for stack in parts.stacks if stack.intent is not None}
    tables = (m for m in outside if isinstance(m, nn.Embedding))
    parts.tables = [m for m in tables if parts.stack_of(m) not in aside]
    for table in parts.tables:
        path = parts.paths[table].lower()
        if _POSITION.search(path):
            parts.position_embedding = parts.position_embedding or table
        elif _TYPE.search(path):
            parts.type_embedding = parts.type_embedding or table
        elif parts.token_embedding is None:
            parts.token_embedding = table
    places, tokens = parts.position_embedding, parts.token_embedding
    if isinstance(places, nn.Embedding) and isinstance(tokens, nn.Embedding):
        # A table of another width turns heads rather than enters the sum (RoFormer).
        widths = (tokens.embedding_dim, parts.intent.width)
        parts.position_embedding = places if places.embedding_dim in widths else None
    if parts.token_embedding is not None:
        owner = _owner(parts.root, parts.token_embedding)
        drops = [c for c in owner.children() if isinstance(c, nn.Dropout)]
        parts.embedding_dropout = drops[0] if drops else None


def _head(parts: ModelParts, outside: list[nn.Module]) -> nn.Module | None:
    parts.outer_linears = linears = [m for m in outside if is_linear(m)]
    if not linears:
        return None
    classes = parts.intent.classes
    fitting = [m for m in linears if classes and weight_of(m).shape[0] == classes]
    named = [
        m for m in linears if re.search(r"(lm_head|decoder|score|classifier)$", parts.paths[m])
    ]
    return (fitting or named or linears)[-1]
