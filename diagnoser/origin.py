"""Where the fault sits: suspicion of every site, and the layers to name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diagnoser.taxonomy import categories

if TYPE_CHECKING:
    import numpy.typing as npt

    from diagnoser.contracts import Firing
    from diagnoser.graph import Graph

FIRED = 0.95
"""Suspicion of a site whose contract fires and speaks for the category found."""

NAMED = 0.5
"""A layer is named if its suspicion is at least this share of the most suspicious layer's."""


@dataclass(frozen=True)
class Origin:
    """``layers`` in order of depth; ``first`` the most suspicious one, None without layers."""

    suspicion: dict[str, float]
    layers: tuple[int, ...]
    first: int | None


def locate(
    graph: Graph,
    suspicion: npt.NDArray[np.floating],
    firings: tuple[Firing, ...],
    category: str | None,
) -> Origin:
    """Join the network's answer per node with the contracts that fire. ``suspicion``: (nodes,).

    Without a category (the run is not flagged) nothing is located: only the network's answer.
    """
    found = {
        name: float(value) for name, value in zip(graph.names, suspicion.tolist(), strict=True)
    }
    if category is None:
        return Origin(found, (), None)
    speaking = [
        firing for firing in firings if any(c.split("/")[0] == category for c in firing.causes)
    ]
    if speaking:
        # Consequences further down the causal order do not add origins.
        speaking = [firing for firing in speaking if firing.rank == speaking[0].rank]
    for firing in speaking:
        if firing.site in found:
            found[firing.site] = max(found[firing.site], FIRED)
    nodes = categories()[category].nodes
    by_layer: dict[int, float] = {}
    for kind in nodes:
        for site, layer in zip(graph.sites.get(kind, ()), graph.layers.get(kind, ()), strict=True):
            if layer >= 0:
                by_layer[layer] = max(by_layer.get(layer, 0.0), found[site])
    fired = {firing.layer for firing in speaking if firing.layer is not None}
    if speaking and not fired:
        return Origin(found, (), None)
    chosen = {layer: by_layer[layer] for layer in fired} if fired else by_layer
    if not chosen:
        return Origin(found, (), None)
    top = max(chosen.values())
    first = min(layer for layer, value in chosen.items() if value == top)
    layers = tuple(sorted(layer for layer, value in chosen.items() if value >= NAMED * top))
    return Origin(found, layers, first)
