"""The network: an encoder per node kind, relational message passing, four heads.

Depth does not matter: nodes are pooled by kind, largest and mean over the layers, so that a fault
in one layer of twelve is as visible as in one of two.

* faulty: one logit a graph.
* category: 12 logits.
* root cause: distances to a prototype per root cause in the pooled space, one part per node kind,
  so that the difference between two root causes decomposes by node (the paper's importance).
* origin: one logit a node, whether the fault sits there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch_geometric.nn import MessagePassing

from diagnoser.contracts import VOTE_NAMES
from diagnoser.graph import RELATIONS
from diagnoser.taxonomy import CATEGORY_NAMES, ROOT_CAUSE_KEYS

if TYPE_CHECKING:
    from diagnoser.batch import Batch

CAUSE_CATEGORY: tuple[int, ...] = tuple(
    CATEGORY_NAMES.index(key.split("/")[0]) for key in ROOT_CAUSE_KEYS
)
"""Category's index of every root cause."""

_CAUSE_VOTES = slice(len(VOTE_NAMES) - len(ROOT_CAUSE_KEYS), len(VOTE_NAMES))


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. ``rounds`` 0 switches message passing off (the ablation)."""

    hidden: int = 32
    group: int = 16
    rounds: int = 3
    dropout: float = 0.1

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Output:
    """Raw answers. ``category``: (G, 12). ``cause``: (G, 45) logits within their category.
    ``parts``: (G, 45, kinds) squared distances by node kind. ``origin``: (N,) node logits.
    ``pooled``: (G, kinds * group)."""

    faulty: torch.Tensor
    category: torch.Tensor
    cause: torch.Tensor
    parts: torch.Tensor
    origin: torch.Tensor
    pooled: torch.Tensor


class RelationalConvolution(MessagePassing):
    """One round: a weight per edge type, mean over the edges of a type, sum over types, and the
    node's own state through its own weight (Schlichtkrull et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.width = width
        self.relations = nn.Linear(width, width * len(RELATIONS), bias=False)
        self.own = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        per_relation = self.relations(x).reshape(-1, self.width)
        rows = batch.edge_index[0] * len(RELATIONS) + batch.edge_type
        messages = per_relation[rows] * batch.edge_weight[:, None]
        gathered = self.propagate(batch.edge_index, messages=messages, size=(len(x), len(x)))
        return self.own(x) + gathered

    def message(self, messages: torch.Tensor) -> torch.Tensor:
        return messages


class Standardise(nn.Module):
    """Takes the training mean from a kind's features, divides by their spread (not under 0.25:
    features that hardly vary in training must not explode on another model), cuts at 5."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, values: torch.Tensor) -> None:
        if len(values):
            self.mean.copy_(values.mean(dim=0))
            self.scale.copy_(values.std(dim=0, unbiased=False).clamp(min=0.25))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return ((values - self.mean) / self.scale).clamp(-5.0, 5.0)


def _key(kind: str) -> str:
    """A module may not be called ``training``, which a node kind is."""
    return f"{kind}_node"


class DiagnosisNetwork(nn.Module):
    """``names``: feature names by node kind, as in :func:`diagnoser.schema.all_feature_names`."""

    def __init__(self, names: dict[str, tuple[str, ...]], shape: Shape | None = None) -> None:
        super().__init__()
        self.names = names
        self.kinds = tuple(names)
        self.shape = shape = shape or Shape()
        width, group = shape.hidden, shape.group
        self.standardise = nn.ModuleDict(
            {_key(kind): Standardise(len(found)) for kind, found in names.items()}
        )
        self.encoders = nn.ModuleDict(
            {
                _key(kind): nn.Sequential(
                    nn.Dropout(shape.dropout),
                    nn.Linear(len(found), width),
                    nn.ReLU(),
                    nn.Linear(width, width),
                    nn.ReLU(),
                )
                for kind, found in names.items()
            }
        )
        self.rounds = nn.ModuleList(RelationalConvolution(width) for _ in range(shape.rounds))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(shape.rounds))
        self.group_weight = nn.Parameter(torch.empty(len(self.kinds), 4 * width, group))
        self.group_bias = nn.Parameter(torch.zeros(len(self.kinds), group))
        nn.init.normal_(self.group_weight, std=(4 * width) ** -0.5)
        pooled = len(self.kinds) * group + len(VOTE_NAMES)
        self.faulty = nn.Sequential(
            nn.Dropout(shape.dropout), nn.Linear(pooled, 64), nn.ReLU(), nn.Linear(64, 1)
        )
        self.category = nn.Sequential(
            nn.Dropout(shape.dropout),
            nn.Linear(pooled, 64),
            nn.ReLU(),
            nn.Linear(64, len(CATEGORY_NAMES)),
        )
        self.prototypes = nn.Parameter(0.1 * torch.randn(len(ROOT_CAUSE_KEYS), len(names), group))
        self.vote_weight = nn.Parameter(torch.tensor(1.0))
        self.origin = nn.Sequential(
            nn.Linear(2 * width + group, width), nn.ReLU(), nn.Linear(width, 1)
        )
        self.origin_context = nn.Linear(pooled, group)

    def forward(self, batch: Batch) -> Output:
        start = torch.cat([self.encode(kind, batch.x[kind]) for kind in self.kinds])
        state = start
        for convolution, norm in zip(self.rounds, self.norms, strict=True):
            state = state + torch.relu(convolution(norm(state), batch))
        both = torch.cat([start, state], dim=1)
        pooled = self._pool(both, batch)
        flat = torch.cat([pooled.flatten(1), batch.votes], dim=1)
        parts = (pooled[:, None] - self.prototypes[None]).square().sum(dim=-1)
        context = self.origin_context(flat)[batch.graph_of]
        return Output(
            faulty=self.faulty(flat).squeeze(-1),
            category=self.category(flat),
            cause=self.vote_weight * batch.votes[:, _CAUSE_VOTES] - parts.sum(dim=-1),
            parts=parts,
            origin=self.origin(torch.cat([both, context], dim=1)).squeeze(-1),
            pooled=pooled.flatten(1),
        )

    def fit_scale(self, kind: str, values: torch.Tensor) -> None:
        """Set a kind's standardisation from the training samples' features (nodes, features)."""
        found = self.standardise[_key(kind)]
        assert isinstance(found, Standardise)
        found.fit(values)

    def encode(self, kind: str, values: torch.Tensor) -> torch.Tensor:
        """(nodes, features) of one kind -> (nodes, hidden)."""
        return self.encoders[_key(kind)](self.standardise[_key(kind)](values))

    def _pool(self, nodes: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Largest and mean over the sites of a kind, (G, kinds, group); zeros without a site."""
        cells = batch.graphs * len(self.kinds)
        cell = batch.graph_of * len(self.kinds) + batch.kind_of
        count = torch.bincount(cell, minlength=cells).clamp(min=1)[:, None]
        mean = nodes.new_zeros(cells, nodes.shape[1]).index_add(0, cell, nodes) / count
        # Node states are >= 0 (ReLU and sums of ReLU), so that 0 is a neutral start.
        largest = nodes.new_zeros(cells, nodes.shape[1]).scatter_reduce(
            0, cell[:, None].expand_as(nodes), nodes, "amax"
        )
        pooled = torch.cat([largest, mean], dim=1).view(batch.graphs, len(self.kinds), -1)
        found = torch.einsum("gkw,kwp->gkp", pooled, self.group_weight)
        return torch.tanh(found + self.group_bias)


def cause_log_probabilities(output: Output, temperature: float = 1.0) -> torch.Tensor:
    """(G, 45) log probability of each root cause given its category."""
    member = nn.functional.one_hot(torch.tensor(CAUSE_CATEGORY), len(CATEGORY_NAMES)).bool()
    logits = output.cause / temperature
    split = logits[:, None, :].masked_fill(~member.T[None], float("-inf"))
    total = split.logsumexp(dim=-1)
    return logits - total[:, list(CAUSE_CATEGORY)]


def importance(parts: torch.Tensor, predicted: int) -> torch.Tensor:
    """(kinds,) share of each node kind in the choice of a root cause over its nearest rival.

    The rival is the nearest other prototype of the same category, of any category where it is the
    only one. ``parts``: (45, kinds) of one graph. Formula of the DEFault++ manuscript.
    """
    category = CAUSE_CATEGORY[predicted]
    same = [n for n, c in enumerate(CAUSE_CATEGORY) if c == category and n != predicted]
    rivals = same or [n for n in range(len(CAUSE_CATEGORY)) if n != predicted]
    total = parts.sum(dim=-1)
    rival = min(rivals, key=lambda n: float(total[n]))
    gain = (parts[rival] - parts[predicted]).clamp(min=0.0)
    return gain / gain.sum().clamp(min=1e-9)
