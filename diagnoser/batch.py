"""Graphs of different depth and shape, joined into one set of tensors.

Nodes of a batch stand by kind, then by graph, then by site, so that each kind's encoder reads one
block and no padding is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from diagnoser.graph import RELATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from diagnoser.graph import Graph

    Floats = npt.NDArray[np.floating]


@dataclass
class Batch:
    """G graphs with N nodes in all.

    ``x``: kind -> (nodes of the kind, features). ``edge_index``: (2, E). ``edge_type``: (E,),
    ascending.
    ``edge_weight``: (E,), one over the number of edges of that type into the same node.
    ``graph_of``, ``kind_of``: (N,). ``fired``: (G, rules) 0 or 1. ``order``: (N,) for every
    node of the graphs one after the other, its row in this batch.
    """

    x: dict[str, torch.Tensor]
    edge_index: torch.Tensor
    edge_type: torch.Tensor
    edge_weight: torch.Tensor
    graph_of: torch.Tensor
    kind_of: torch.Tensor
    fired: torch.Tensor
    order: torch.Tensor
    graphs: int


def collate(
    graphs: Sequence[Graph],
    features: Sequence[Mapping[str, Floats]],
    fired: npt.NDArray[np.float32],
) -> Batch:
    """Join graphs, their features (kind -> (sites, features)) and rules met into a batch."""
    kinds = graphs[0].kinds
    counts = np.stack([graph.counts for graph in graphs])
    totals = counts.sum(axis=0)
    kind_start = np.concatenate([[0], np.cumsum(totals)[:-1]])
    starts = kind_start + np.cumsum(counts, axis=0) - counts
    sources, targets, types, orders = [], [], [], []
    for number, graph in enumerate(graphs):
        row = starts[number][graph.node_kind] + graph.node_rank
        orders.append(row)
        sources.append(row[graph.edge_index[0]])
        targets.append(row[graph.edge_index[1]])
        types.append(graph.edge_type)
    source, target, kind = map(np.concatenate, (sources, targets, types))
    by_type = np.argsort(kind, kind="stable")
    source, target, kind = source[by_type], target[by_type], kind[by_type]
    order = np.concatenate(orders)
    into = target * len(RELATIONS) + kind
    frequency = np.bincount(into, minlength=1)
    graph_of = np.concatenate(
        [np.repeat(np.arange(len(graphs)), counts[:, number]) for number in range(len(kinds))]
    )
    x = {
        name: torch.from_numpy(
            np.concatenate([f[name] for f in features], axis=0).astype(np.float32, copy=False)
        )
        for name in kinds
    }
    return Batch(
        x=x,
        edge_index=torch.from_numpy(np.stack([source, target])),
        edge_type=torch.from_numpy(kind),
        edge_weight=torch.from_numpy((1.0 / frequency[into]).astype(np.float32)),
        graph_of=torch.from_numpy(graph_of),
        kind_of=torch.from_numpy(np.repeat(np.arange(len(kinds)), totals)),
        fired=torch.from_numpy(np.ascontiguousarray(fired, dtype=np.float32)),
        order=torch.from_numpy(order),
        graphs=len(graphs),
    )
