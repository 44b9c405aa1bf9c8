"""From nodes to a fixed number of groups, whatever the depth: one per node kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from diagnoser.batch import Batch


class KindPool(nn.Module):
    """Largest and mean over the sites of a kind, then a projection of the kind's own.

    ``width``: of a node's state, which must be >= 0 (so that 0 is a neutral start of the maximum).
    """

    def __init__(self, kinds: int, width: int, group: int) -> None:
        super().__init__()
        self.kinds = kinds
        self.weight = nn.Parameter(torch.randn(kinds, 2 * width, group) * (2 * width) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(kinds, group))

    def forward(self, nodes: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(N, width) -> (G, kinds, group), within -1 and 1; zeros for a kind without a site."""
        cells = batch.graphs * self.kinds
        cell = batch.graph_of * self.kinds + batch.kind_of
        count = torch.bincount(cell, minlength=cells)
        mean = nodes.new_zeros(cells, nodes.shape[1]).index_add(0, cell, nodes)
        mean = mean / count.clamp(min=1)[:, None]
        largest = nodes.new_zeros(cells, nodes.shape[1]).scatter_reduce(
            0, cell[:, None].expand_as(nodes), nodes, "amax"
        )
        pooled = torch.cat([largest, mean], dim=1).view(batch.graphs, self.kinds, -1)
        found = torch.einsum("gkw,kwp->gkp", pooled, self.weight)
        return torch.tanh(found + self.bias) * (count > 0).view(batch.graphs, -1, 1)


def drop_kinds(pooled: torch.Tensor, share: float) -> torch.Tensor:
    """Hide a share of the groups (G, kinds, group), as if the models lacked them: no answer may
    hang on the mere presence of a component that a family does not have."""
    kept = torch.rand(pooled.shape[:2], device=pooled.device) >= share
    return pooled * kept[:, :, None]
