"""The Fault Propagation Graph as rows (node kinds, in the order of the data) and layers."""

from __future__ import annotations

from dataclasses import dataclass

from diagnoser.graph import norm_order
from probe.schema import Anatomy, Site

BEFORE = ("embedding", "positional")
_ATTENTION = ("qkv", "score", "mask", "kv_cache", "attention", "residual_attention")
_CROSS = ("cross_qkv", "cross_score", "cross_mask", "cross_attention", "residual_cross")
AFTER = ("norm_final", "output")
CONTEXTS = ("drift", "training", "validation")

_LABELS = {
    "kv_cache": "kv cache",
    "residual_attention": "+ residual",
    "residual_ffn": "+ residual",
    "residual_cross": "+ residual",
    "norm_attention": "norm",
    "norm_ffn": "norm",
    "norm_cross": "norm",
    "norm_final": "final norm",
    "cross_qkv": "cross qkv",
    "cross_score": "cross score",
    "cross_mask": "cross mask",
    "cross_attention": "cross att.",
}


@dataclass(frozen=True)
class GraphRow:
    """A node kind of a stack. ``sites`` maps a layer to its site; layer None: not in a layer."""

    node: str
    label: str
    sites: dict[int | None, str]

    @property
    def layered(self) -> bool:
        return None not in self.sites

    def site_near(self, layer: int) -> str:
        """The site of the layer, or of the nearest one that has it."""
        return self.sites[min(self.sites, key=lambda number: abs((number or 0) - layer))]


@dataclass(frozen=True)
class GraphStack:
    """One stack of layers (a model has one, an encoder-decoder two), with what feeds it."""

    name: str
    layers: tuple[int, ...]
    before: tuple[GraphRow, ...]
    block: tuple[GraphRow, ...]
    after: tuple[GraphRow, ...]


@dataclass(frozen=True)
class GraphLayout:
    """All stacks in order, and the contexts that stand outside the data's way."""

    stacks: tuple[GraphStack, ...]
    contexts: tuple[GraphRow, ...]

    @property
    def layers(self) -> int:
        return max((len(stack.layers) for stack in self.stacks), default=0)

    @property
    def rows(self) -> tuple[GraphRow, ...]:
        """Every row from top to bottom."""
        found: list[GraphRow] = []
        for stack in self.stacks:
            found += [*stack.before, *stack.block, *stack.after]
        return (*found, *self.contexts)

    def moved(self, site: str | None, layer: int, across: int, down: int) -> tuple[str, int]:
        """The site next to one, and the layer to keep to: rows outside the layers keep it too.

        Without a site: the first. Edges stop the move.
        """
        rows = self.rows
        at = next((i for i, row in enumerate(rows) if site in row.sites.values()), None)
        if at is None:
            return rows[0].site_near(layer), layer
        row = rows[min(max(at + down, 0), len(rows) - 1)]
        if across and row.layered:
            layers = sorted(number for number in row.sites if number is not None)
            here = min(range(len(layers)), key=lambda i: abs(layers[i] - layer))
            layer = layers[min(max(here + across, 0), len(layers) - 1)]
        return row.site_near(layer), layer


def block_order(order: str) -> tuple[str, ...]:
    """Node kinds of a transformer block in the order in which the data passes them."""
    if order == "pre":
        cross = ("norm_cross", *_CROSS)
        return ("norm_attention", *_ATTENTION, *cross, "norm_ffn", "router", "ffn", "residual_ffn")
    cross = (*_CROSS, "norm_cross")
    return (*_ATTENTION, "norm_attention", *cross, "router", "ffn", "residual_ffn", "norm_ffn")


def lay_out(anatomy: Anatomy) -> GraphLayout:
    """Rows and layers for the sites found in the model; kinds never heard of come last."""
    order = block_order(norm_order(anatomy))
    known = {*BEFORE, *order, *AFTER, *CONTEXTS}
    names = list(dict.fromkeys(site.stack for site in anatomy.sites if site.node not in CONTEXTS))
    # What belongs to no stack (a shared embedding, the output) is drawn with the last one.
    stacks = [name for name in names if name] or [""]
    laid = []
    for name in stacks:
        shared = {"", name} if name == stacks[-1] else {name}
        sites = [s for s in anatomy.sites if s.stack in shared and s.node not in CONTEXTS]
        others = tuple(dict.fromkeys(s.node for s in sites if s.node not in known))
        laid.append(
            GraphStack(
                name,
                tuple(sorted({s.layer for s in sites if s.layer is not None})),
                _rows(BEFORE, sites),
                _rows((*order, *others), sites),
                _rows(AFTER, sites),
            )
        )
    contexts = _rows(CONTEXTS, list(anatomy.sites))
    return GraphLayout(tuple(laid), contexts)


def _rows(nodes: tuple[str, ...], sites: list[Site]) -> tuple[GraphRow, ...]:
    rows = []
    for node in nodes:
        found = {site.layer: site.name for site in sites if site.node == node}
        if found:
            rows.append(GraphRow(node, _LABELS.get(node, node.replace("_", " ")), found))
    return tuple(rows)


def suspected_path(
    edges: dict[str, tuple[str, ...]], suspicion: dict[str, float], share: float = 0.25
) -> tuple[str, ...]:
    """From the most suspected site along the edges, through sites still under suspicion.

    A site belongs to the path if its suspicion is at least ``share`` of the origin's. The origin
    comes first; empty where nothing is suspected.
    """
    if not suspicion:
        return ()
    origin = max(suspicion, key=lambda site: suspicion[site])
    least = suspicion[origin] * share
    if suspicion[origin] <= 0:
        return ()
    path, waiting = [origin], [origin]
    while waiting:
        for target in edges.get(waiting.pop(0), ()):
            if target not in path and suspicion.get(target, 0.0) >= least:
                path.append(target)
                waiting.append(target)
    return tuple(path)
