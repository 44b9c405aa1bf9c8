"""What is true of a run from its start, in words: optimizer, dropout, weights, attention, dtypes.

:data:`FACTS` defines each once; the header, ``doctor --model`` and the docs take them from there.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from probe import dropouts
from probe.absence import Key, Seen
from probe.anatomy import LayerParts, ModelParts, is_norm
from probe.measure.sampled import eps_of
from probe.optimizers import parameters_of

NAMED = 3
"""Names listed at most."""
PEERS = 1.5
"""Factor within which the weights of layers are taken for alike."""


@dataclass(frozen=True)
class Subject:
    """A model after its first observed forward. ``optimizers`` empty: none was given."""

    parts: ModelParts
    optimizers: list[torch.optim.Optimizer]
    seen: Seen

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are not frozen, by name."""
        return {n: p for n, p in self.parts.root.named_parameters() if p.requires_grad}


@dataclass(frozen=True)
class Fact:
    """``read`` gives the text; empty where there is nothing to say."""

    name: str
    meaning: str
    read: Callable[[Subject], str]


def read_all(subject: Subject) -> dict[str, str]:
    """Every fact that can be told, by name. Raises nothing, whatever the model is like."""
    found = {}
    for fact in FACTS:
        try:
            text = fact.read(subject)
        except Exception as error:  # an unusual module or group must not cost the run its header
            text = f"could not be read: {type(error).__name__}: {error}"
        if text:
            found[fact.name] = text
    return found


def _some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more


def _values(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:g}" for number in sorted(set(numbers))) or "none"


def _optimizer(of: Subject) -> str:
    groups = [len(optimizer.param_groups) for optimizer in of.optimizers]
    told = [
        f"{type(optimizer).__name__} ({count} group{'s' if count > 1 else ''})"
        for optimizer, count in zip(of.optimizers, groups, strict=True)
    ]
    return ", ".join(told) or "none was given"


def _held(of: Subject) -> Counter[int]:
    return Counter(id(p) for optimizer in of.optimizers for p in parameters_of(optimizer))


def _coverage(of: Subject) -> str:
    if not of.optimizers:
        return ""
    held, trained = _held(of), of.trained
    left = [name for name, parameter in trained.items() if id(parameter) not in held]
    # Of another model, or of projections and adapters that were replaced since.
    strange = len(held.keys() - {id(parameter) for parameter in of.parts.root.parameters()})
    more = f"; {strange} in its groups are of no module of this model" if strange else ""
    if not left:
        return f"all {len(trained)} parameters that train{more}"
    few = f"{len(left)} of {len(trained)} parameters that train are in no group: {_some(left)}"
    return few + more


def _duplicates(of: Subject) -> str:
    if not of.optimizers:
        return ""
    held = _held(of)
    twice = [name for name, p in of.parts.root.named_parameters() if held[id(p)] > 1]
    return _some(twice) or "none"


def _frozen(of: Subject) -> str:
    named = dict(of.parts.root.named_parameters())
    still = [name for name, parameter in named.items() if not parameter.requires_grad]
    return f"{len(still)} of {len(named)} parameters: {_some(still)}" if still else "none"


def _kinds(root: nn.Module) -> dict[int, str]:
    """Kind of each parameter, by id: what its module is counts before its shape."""
    kinds: dict[int, str] = {}
    for module in root.modules():
        for name, parameter in module.named_parameters(recurse=False):
            kinds.setdefault(id(parameter), _kind(module, name, parameter))
    return kinds


def _kind(module: nn.Module, name: str, parameter: nn.Parameter) -> str:
    if isinstance(module, nn.Embedding):
        return "embeddings"
    if is_norm(module):
        return "norms"
    if parameter.dim() >= 2:
        return "matrices"
    return "biases" if "bias" in name else "rest"


def _decay(of: Subject) -> str:
    kinds = _kinds(of.parts.root)
    found: dict[str, list[float]] = {}
    for optimizer in of.optimizers:
        for group in optimizer.param_groups:
            for kind in {kinds[id(p)] for p in group["params"] if id(p) in kinds}:
                found.setdefault(kind, []).append(float(group.get("weight_decay", 0.0) or 0.0))
    order = ("matrices", "embeddings", "norms", "biases", "rest")
    return "; ".join(f"{kind} {_values(found[kind])}" for kind in order if kind in found)


def _tied(of: Subject) -> str:
    names: dict[int, list[str]] = {}
    for name, parameter in of.parts.root.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    shared = [" = ".join(same) for same in names.values() if len(same) > 1]
    return "; ".join(shared[:NAMED]) or "none"


def _dropout(of: Subject) -> str:
    parts, stated = of.parts, of.parts.intent.attention_dropout
    by_role = (
        dropouts.of_embedding(parts),
        dropouts.of_branches(parts),
        dropouts.of_feed_forward(parts),
        dropouts.of_classifier(parts),
    )
    told = [f"attention by the config {stated:g}"] if stated is not None else []
    for found in by_role:
        if found.rates:
            asked = f" (config {found.intended:g})" if found.intended is not None else ""
            told.append(f"{found.role} {_values(found.rates)}{asked}")
    return "; ".join(told)


def _epsilon(of: Subject) -> str:
    norms = [norm for layer in of.parts.layers for norm in layer.norms] + of.parts.outer_norms
    known = [eps for norm in norms if (eps := eps_of(norm)) is not None]
    stated = of.parts.intent.norm_eps
    if not known:
        return ""
    return _values(known) + (f" (config {stated:g})" if stated is not None else "")


def _activation(of: Subject) -> str:
    ran = Counter(kind for layer in of.parts.layers for kind in _without_weights(layer))
    modules = ", ".join(f"{kind} in {count} layers" for kind, count in ran.items())
    stated = of.parts.intent.activation
    return "; ".join(t for t in (f"{stated} by the config" if stated else "", modules) if t)


def _without_weights(layer: LayerParts) -> list[str]:
    """Classes of what stands in the feed-forward block beside linears, norms and dropout."""
    if layer.ffn is None or layer.ffn is layer.block:
        return []
    inner = [m for m in layer.ffn.modules() if not any(True for _ in m.children())]
    plain = [m for m in inner if not any(True for _ in m.parameters())]
    return [type(m).__name__ for m in plain if not isinstance(m, (nn.Dropout, nn.Identity))]


def _heads(of: Subject) -> str:
    parts, intent = of.parts, of.parts.intent
    heads, shared = intent.heads or parts.heads_seen, intent.kv_heads or parts.kv_heads_seen
    dim = intent.head_dim or parts.head_dim_seen
    return f"{heads} for queries, {shared} for keys and values, of dimension {dim}" if heads else ""


def _windows(of: Subject) -> str:
    places: dict[int, list[str]] = {}
    for layer, window in enumerate(of.parts.intent.windows):
        if window is not None:
            places.setdefault(window, []).append(str(layer))
    told = [f"{window} tokens in layers {', '.join(where)}" for window, where in places.items()]
    return "; ".join(told) or "none stated: every layer sees everything"


def _attention(of: Subject) -> str:
    sites = {layer.site("attention") for layer in of.parts.layers}
    calls = [call for site, call in of.seen.calls.items() if site in sites]
    by_hand = sum(call.by_hand for call in calls)
    count = len(of.parts.layers)
    told = [f"{asked} by the config"] if (asked := of.parts.intent.attention_implementation) else []
    if len(calls) > by_hand:
        told.append(f"a kernel in {len(calls) - by_hand} of {count} layers")
    if by_hand:
        told.append(f"softmax by hand in {by_hand} of {count} layers")
    return "; ".join(told)


def _dtypes(of: Subject) -> str:
    kinds = Counter(str(p.dtype).removeprefix("torch.") for p in of.parts.root.parameters())
    if len(kinds) == 1:
        return next(iter(kinds))
    return ", ".join(f"{kind} in {count} parameters" for kind, count in kinds.most_common())


FACTS: tuple[Fact, ...] = (
    Fact("optimizer", "the optimizers given, and their groups", _optimizer),
    Fact("coverage", "whether every parameter that trains is in an optimizer's group", _coverage),
    Fact("duplicates", "parameters that stand in several groups", _duplicates),
    Fact("frozen", "parameters that do not train", _frozen),
    Fact("weight decay", "by kind of parameter", _decay),
    Fact("tied weights", "parameters that stand under several names", _tied),
    Fact("dropout", "what the modules hold, by role, and what the config states", _dropout),
    Fact("norm epsilon", "what the norms hold, and what the config states", _epsilon),
    Fact("activation", "the config's, and the modules without weights between the linears",
         _activation),
    Fact("heads", "how the width is split", _heads),
    Fact("windows", "how far back layers see", _windows),
    Fact("attention", "the implementation asked for, and what ran", _attention),
    Fact("dtypes", "of the parameters", _dtypes),
)  # fmt: skip

INITIAL = ("initial weights", "each layer's weights against the same in the other layers")
"""Name and meaning of the fact that :func:`initial_weights` tells; it needs measured values."""

_COMPARED = {
    "qkv": ("q_weight", "k_weight", "v_weight"),
    "attention": ("out_weight",),
    "ffn": ("in_weight", "out_weight"),
}


def initial_weights(numbers: Mapping[Key, float]) -> str:
    """Weights that are far from their peers in the first sample, before any step.

    ``numbers``: values by site and metric. Empty where there are fewer than three layers.
    """
    groups: dict[tuple[str, str], dict[str, float]] = {}
    for (site, metric), value in numbers.items():
        place = site.partition("@")[0]
        if metric in _COMPARED.get(place.rpartition(".")[2], ()) and "@" in site:
            groups.setdefault((place, metric), {})[site] = value
    compared = {key: values for key, values in groups.items() if len(values) >= 3}
    odd = []
    for (_, metric), values in compared.items():
        usual = statistics.median(values.values())
        for site, value in values.items():
            if usual > 0 and not usual / PEERS <= value <= usual * PEERS:
                odd.append(f"{site}/{metric} is {value / usual:.2g} times the median layer's")
    if odd:
        return _some(odd)
    return f"alike within a factor of {PEERS:g}" if compared else ""
