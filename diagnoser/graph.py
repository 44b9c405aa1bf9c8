"""The Fault Propagation Graph of a run at layer resolution.

``fpg.csv`` holds the rules (which component's fault reaches which, by which mechanism, under which
condition); :func:`edges` applies them to the sites of one model. A node is a site. Contexts
(``drift``, ``training``, ``validation``) have no edges to others: their measurements reach the
decision through pooling, and in message passing each node keeps its own state (its self-loop).
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from diagnoser.taxonomy import read_table
from probe.nodes import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt
    from torch_geometric.data import HeteroData

    from probe.schema import Anatomy, Site

MECHANISMS: tuple[str, ...] = ("M1", "M2", "M3", "M4", "M7")
"""Forward, simultaneous, residual, cross-layer and cache-time. M5 (gradient) and M6
(intervention) are no edges: they enter through gradient metrics and labels."""

RELATIONS: tuple[str, ...] = (*MECHANISMS, *(f"{name}-reverse" for name in MECHANISMS))
"""Edge types of the message passing: every mechanism in both directions."""

_PLACE = re.compile(r"^(?P<node>[a-z_]+)(?:@(?P<layer>0|l(?P<shift>[+-]1)?))?$")


@dataclass(frozen=True)
class Edge:
    """A fault at ``source`` shows at ``target`` by ``mechanism``; ``limiter`` bounds its size."""

    source: str
    target: str
    mechanism: str
    limiter: str = ""


def norm_order(anatomy: Anatomy) -> str:
    """``pre`` or ``post``; where the probe could not tell, a final norm means ``pre``."""
    if anatomy.norm_order != "unknown":
        return anatomy.norm_order
    return "pre" if any(site.node == "norm_final" for site in anatomy.sites) else "post"


def _holds(condition: str, anatomy: Anatomy) -> bool:
    added = anatomy.positions in ("learned", "unknown")
    return {
        "always": True,
        "positions added to the embedding": added,
        "rotary, relative or ALiBi positions": not added,
        "decoder": anatomy.kind in ("decoder", "encoder-decoder"),
        "post-norm": norm_order(anatomy) == "post",
        "pre-norm": norm_order(anatomy) == "pre",
        "encoder-decoder": anatomy.kind == "encoder-decoder",
        "mixture of experts": any(site.node == "router" for site in anatomy.sites),
    }[condition]


class _Places:
    """Finds sites by stack, node and layer; a stack's missing global part is the model's own."""

    def __init__(self, sites: Iterable[Site]) -> None:
        self._names = {(site.stack, site.node, site.layer): site.name for site in sites}
        self.layers: dict[str, list[int]] = defaultdict(list)
        for stack, _, layer in self._names:
            if layer is not None and layer not in self.layers[stack]:
                self.layers[stack].append(layer)
        for found in self.layers.values():
            found.sort()

    def find(self, stack: str, node: str, layer: int | None) -> str | None:
        own = self._names.get((stack, node, layer))
        return own if own is not None or layer is not None else self._names.get(("", node, None))

    def last(self, stack: str, nodes: Iterable[str]) -> str | None:
        """The site of the first of ``nodes`` that exists: global ones, else in the last layer."""
        last = self.layers[stack][-1] if self.layers[stack] else None
        for node in nodes:
            found = self.find(stack, node, None) or self.find(stack, node, last)
            if found is not None:
                return found
        return None


def _resolve(place: str, layer: int, stack: str, places: _Places) -> str | None:
    match = _PLACE.match(place)
    if match is None:
        raise ValueError(f"fpg.csv names {place!r}, which is no node, node@0 or node@l")
    where = match["layer"]
    if where is None:
        return places.find(stack, match["node"], None)
    if where == "0":
        return places.find(stack, match["node"], 0)
    return places.find(stack, match["node"], layer + int(match["shift"] or 0))


@lru_cache(maxsize=64)
def edges(anatomy: Anatomy) -> tuple[Edge, ...]:
    """Every edge of this model's graph, in the order of the rules. Pure; any depth.

    Rules whose ends the model does not have (no mask site, no cache) give no edge.
    """
    places = _Places(anatomy.sites)
    found: dict[tuple[str, str, str], Edge] = {}

    def add(source: str | None, target: str | None, mechanism: str, limiter: str) -> None:
        if source is not None and target is not None and source != target:
            found.setdefault((source, target, mechanism), Edge(source, target, mechanism, limiter))

    stacks = sorted(places.layers) or [""]
    for row in read_table("fpg.csv"):
        mechanism = row["mechanism"].split()[0]
        if mechanism not in MECHANISMS or not _holds(row["when"], anatomy):
            continue
        for stack in stacks:
            if row["source"] == "last residual or norm":
                for source, target in _to_output(anatomy, places, stack):
                    add(source, target, mechanism, row["limiter"])
            elif row["source"] == "encoder output":
                for source, target, kind in _cross(anatomy, places, stack):
                    add(source, target, kind, "softmax" if "cross_mask" in (source or "") else "")
            else:
                for layer in places.layers[stack]:
                    source_site = _resolve(row["source"], layer, stack, places)
                    target_site = _resolve(row["target"], layer, stack, places)
                    add(source_site, target_site, mechanism, row["limiter"])
    return tuple(found.values())


def _to_output(
    anatomy: Anatomy, places: _Places, stack: str
) -> Iterator[tuple[str | None, str | None]]:
    if stack == "encoder" and anatomy.kind == "encoder-decoder":
        return
    after = "norm_ffn" if norm_order(anatomy) == "post" else "residual_ffn"
    stream = places.last(stack, (after, "residual_ffn"))
    final = places.find(stack, "norm_final", None)
    output = places.find(stack, "output", None)
    if final is not None:
        yield stream, final
        yield final, output
    else:
        yield stream, output


_CROSS_NORMS = {
    "pre": (
        ("residual_attention", "norm_cross", "M1"),
        ("norm_cross", "cross_qkv", "M1"),
        ("residual_cross", "norm_ffn", "M1"),
    ),
    "post": (
        ("norm_attention", "cross_qkv", "M1"),
        ("residual_cross", "norm_cross", "M1"),
        ("norm_cross", "ffn", "M1"),
    ),
}


def _cross(
    anatomy: Anatomy, places: _Places, stack: str
) -> Iterator[tuple[str | None, str | None, str]]:
    if stack == "encoder":
        return
    memory = places.last("encoder", ("norm_final", "norm_ffn", "residual_ffn"))
    chain = (
        ("cross_qkv", "cross_score", "M2"),
        ("cross_qkv", "cross_attention", "M2"),
        ("cross_score", "cross_mask", "M1"),
        ("cross_mask", "cross_attention", "M1"),
        ("cross_attention", "residual_cross", "M1"),
        ("residual_attention", "residual_cross", "M3"),
        ("residual_cross", "residual_ffn", "M3"),
        *_CROSS_NORMS[norm_order(anatomy)],
    )
    for layer in places.layers[stack]:
        yield memory, places.find(stack, "cross_qkv", layer), "M1"
        for source, target, kind in chain:
            yield places.find(stack, source, layer), places.find(stack, target, layer), kind


@dataclass(frozen=True)
class Graph:
    """A model's graph as arrays. Nodes stand by kind, within a kind in the anatomy's order.

    ``sites``: names by kind; ``edge_index``: (2, edges), ``edge_type``: (edges,) index into
    :data:`RELATIONS`; ``node_kind``, ``node_rank``: (nodes,) kind's index and place within it.
    """

    kinds: tuple[str, ...]
    sites: dict[str, tuple[str, ...]]
    layers: dict[str, tuple[int, ...]]
    """Layer of each site by kind; -1 for sites outside the layers."""
    edge_index: npt.NDArray[np.int64]
    edge_type: npt.NDArray[np.int64]
    node_kind: npt.NDArray[np.int64]
    node_rank: npt.NDArray[np.int64]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for kind in self.kinds for name in self.sites[kind])

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Nodes of each kind, shape (kinds,)."""
        return np.array([len(self.sites[kind]) for kind in self.kinds], dtype=np.int64)


@lru_cache(maxsize=64)
def build(anatomy: Anatomy, kinds: tuple[str, ...]) -> Graph:
    """The graph over the sites whose node is one of ``kinds`` or like one, both directions of every
    edge: cross-attention stands in the graph as one more layer of attention does."""
    found = {kind: [site for site in anatomy.sites if kind_of(site.node) == kind] for kind in kinds}
    sites = {kind: tuple(site.name for site in found[kind]) for kind in kinds}
    layers = {
        kind: tuple(-1 if site.layer is None else site.layer for site in found[kind])
        for kind in kinds
    }
    names = [name for kind in kinds for name in sites[kind]]
    place = {name: number for number, name in enumerate(names)}
    known = [edge for edge in edges(anatomy) if edge.source in place and edge.target in place]
    ends = [(place[edge.source], place[edge.target]) for edge in known]
    types = [MECHANISMS.index(edge.mechanism) for edge in known]
    forward = np.array(ends, dtype=np.int64).reshape(-1, 2).T
    number_of = [number for number, kind in enumerate(kinds) for _ in sites[kind]]
    rank_of = [rank for kind in kinds for rank in range(len(sites[kind]))]
    return Graph(
        kinds=kinds,
        sites=sites,
        layers=layers,
        edge_index=np.concatenate([forward, forward[::-1]], axis=1),
        edge_type=np.array(types + [t + len(MECHANISMS) for t in types], dtype=np.int64),
        node_kind=np.array(number_of, dtype=np.int64),
        node_rank=np.array(rank_of, dtype=np.int64),
    )


def to_hetero(anatomy: Anatomy, features: dict[str, npt.NDArray[np.float32]]) -> HeteroData:
    """The graph as torch_geometric data: ``x`` by node kind, edges by (kind, relation, kind).

    ``features``: kind -> (sites of the kind, features). For export and for other models; the
    diagnoser's own model batches :class:`Graph` arrays directly, which is faster.
    """
    import torch
    from torch_geometric.data import HeteroData

    graph = build(anatomy, tuple(features))
    data = HeteroData()
    for kind, values in features.items():
        if len(values) != len(graph.sites[kind]):
            expected = len(graph.sites[kind])
            raise ValueError(f"{kind}: {len(values)} rows of features for {expected} sites")
        data[kind].x = torch.from_numpy(np.ascontiguousarray(values))
        data[kind].site = list(graph.sites[kind])
    source, target = graph.edge_index
    triples = np.stack([graph.node_kind[source], graph.edge_type, graph.node_kind[target]])
    for first, relation, last in np.unique(triples, axis=1).T:
        chosen = (triples == np.array([[first], [relation], [last]])).all(axis=0)
        ends = np.stack([graph.node_rank[source[chosen]], graph.node_rank[target[chosen]]])
        key = (graph.kinds[first], RELATIONS[relation], graph.kinds[last])
        data[key].edge_index = torch.from_numpy(ends)
    return data
