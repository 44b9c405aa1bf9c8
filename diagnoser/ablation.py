"""Ablations: networks that lack one thing each, to show what that thing is good for.

``separation`` is left out of the losses, ``messages`` of the network; the others take something
from its input, here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from diagnoser import schema
from diagnoser.graph import RELATIONS

if TYPE_CHECKING:
    from diagnoser.batch import Batch

ABLATIONS: dict[str, str] = {
    "messages": "without message passing",
    "types": "with one type of edges",
    "wiring": "with edges that lead anywhere",
    "layers": "with the layers of a kind collapsed into their mean",
    "separation": "without the loss that separates root causes",
    "contracts": "without contracts",
}
"""By name: what a network is like without it."""


def reduced(batch: Batch, without: tuple[str, ...]) -> Batch:
    """The batch without what is named (names of :data:`ABLATIONS`; others change nothing)."""
    if "contracts" in without:
        x = {kind: values * _no_contract(kind) for kind, values in batch.x.items()}
        batch = replace(batch, x=x, fired=torch.zeros_like(batch.fired))
    if "layers" in without:
        batch = replace(batch, x=_collapsed(batch))
    if "wiring" in without:
        edges = torch.stack([batch.edge_index[0], _elsewhere(batch)[batch.edge_index[1]]])
        batch = replace(batch, edge_index=edges)
    if "types" in without:
        batch = replace(batch, edge_type=torch.zeros_like(batch.edge_type))
    if "wiring" in without or "types" in without:
        into = batch.edge_index[1] * len(RELATIONS) + batch.edge_type
        batch = replace(batch, edge_weight=1.0 / torch.bincount(into)[into].float())
    return batch


@lru_cache(maxsize=64)
def _no_contract(kind: str) -> torch.Tensor:
    """(features,) 0 for what is told of contracts, 1 for the rest."""
    contracts = {metric.name for metric in schema.metrics_of(kind) if metric.contract}
    names = schema.feature_names(kind)
    return torch.tensor([float(name.split(":")[0] not in contracts) for name in names])


def _collapsed(batch: Batch) -> dict[str, torch.Tensor]:
    """Features in which every layer of a graph has the mean of its kind."""
    found = {}
    start = 0
    for kind, values in batch.x.items():
        graph = batch.graph_of[start : start + len(values)]
        start += len(values)
        count = torch.bincount(graph, minlength=batch.graphs).clamp(min=1)[:, None]
        total = values.new_zeros(batch.graphs, values.shape[1]).index_add(0, graph, values)
        found[kind] = (total / count)[graph]
    return found


def _elsewhere(batch: Batch) -> torch.Tensor:
    """(N,) for every node another of its graph, the same for graphs of the same size."""
    sizes = torch.bincount(batch.graph_of, minlength=batch.graphs).tolist()
    moved = torch.empty_like(batch.order)
    start = 0
    for size in sizes:
        rows = batch.order[start : start + size]
        moved[rows] = rows[_shuffled(size)]
        start += size
    return moved


@lru_cache(maxsize=256)
def _shuffled(size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(size).permutation(size))
