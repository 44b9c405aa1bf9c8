"""The network: an encoder per node kind, relational message passing, four heads.

Depth does not matter: nodes are pooled by kind, largest and mean over the layers, so that a fault
in one layer of twelve is as visible as in one of two.

* faulty: one logit a graph, from the nodes' own features before any message. A graph unlike those
  of training (another order of norms) would otherwise look like a fault; measured, with one family
  left out of the training.
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

from diagnoser.ablation import reduced
from diagnoser.graph import RELATIONS
from diagnoser.pooling import KindPool, drop_kinds
from diagnoser.taxonomy import CATEGORY_NAMES, ROOT_CAUSE_KEYS
from diagnoser.votes import CAUSE_CATEGORY, Votes

if TYPE_CHECKING:
    from diagnoser.batch import Batch


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. ``without``: what an ablation takes away, by the names of
    :data:`diagnoser.ablation.ABLATIONS`."""

    hidden: int = 32
    group: int = 16
    rounds: int = 3
    dropout: float = 0.15
    without: tuple[str, ...] = ()

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
    certain: torch.Tensor
    """(G,) bool: a contract is broken for sure."""
    named: torch.Tensor
    """(G, 45) 1 for the root cause of each category that its contracts name, where they do."""


SILENCED = 0.3
"""Share of training graphs whose contracts the heads of category and root cause do not hear."""

CERTAIN = 4.0
"""Detection logit that a broken contract gives at least, whatever the rest of the run looks like
(0.982, above every threshold for flagging)."""


def detection_logit(output: Output, temperature: float = 1.0) -> torch.Tensor:
    """(G,) calibrated logit of being faulty. A certain contract is not outvoted."""
    calibrated = output.faulty / temperature
    return torch.where(output.certain, calibrated.clamp(min=CERTAIN), calibrated)


class RelationalConvolution(MessagePassing):
    """One round: a weight per edge type, mean over the edges of a type, sum over types, and the
    node's own state through its own weight (Schlichtkrull et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__(aggr="sum", node_dim=0)
        self.width = width
        self.relations = nn.Linear(width, width * len(RELATIONS), bias=False)
        self.own = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, batch: Batch, weight: torch.Tensor) -> torch.Tensor:
        # One product per type, over its own edges alone: a quarter of the work of all types for
        # every node.
        counts = torch.bincount(batch.edge_type, minlength=len(RELATIONS)).tolist()
        states = (x[batch.edge_index[0]] * weight[:, None]).split(counts)
        relations = self.relations.weight.view(len(RELATIONS), self.width, self.width)
        messages = torch.cat([own @ w.T for own, w in zip(states, relations, strict=True)])
        gathered = self.propagate(batch.edge_index, messages=messages, size=(len(x), len(x)))
        return self.own(x) + gathered

    def message(self, messages: torch.Tensor) -> torch.Tensor:
        return messages


class Standardise(nn.Module):
    """Takes the training mean from a kind's features, divides by their spread (not under 0.5:
    features that hardly vary in training must not explode on another model), cuts at 5.

    What never varied in training is silent: nothing was learnt about it, so that the first model
    that has it would be judged by weights as they were drawn. So is what merely tells that a metric
    is measured: it tells model families apart, not faults.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    heard: torch.Tensor

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(names)))
        self.register_buffer("scale", torch.ones(len(names)))
        heard = [not name.endswith(":present") for name in names]
        self.register_buffer("heard", torch.tensor(heard, dtype=torch.float32))

    def fit(self, values: torch.Tensor) -> None:
        if len(values):
            spread = values.std(dim=0, unbiased=False)
            self.mean.copy_(values.mean(dim=0))
            self.scale.copy_(spread.clamp(min=0.5))
            self.heard.mul_((spread > 1e-6).float())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return ((values - self.mean) / self.scale).clamp(-5.0, 5.0) * self.heard


def _metric_numbers(names: tuple[str, ...]) -> torch.Tensor:
    """(features,) the number of the metric that each ``METRIC:STATISTIC`` belongs to."""
    metrics = list(dict.fromkeys(name.split(":")[0] for name in names))
    return torch.tensor([metrics.index(name.split(":")[0]) for name in names])


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
            {_key(kind): Standardise(found) for kind, found in names.items()}
        )
        self.encoders = nn.ModuleDict(
            {
                _key(kind): nn.Sequential(
                    nn.Linear(len(found), width),
                    nn.ReLU(),
                    nn.Linear(width, width),
                    nn.ReLU(),
                )
                for kind, found in names.items()
            }
        )
        self._metric_of = {kind: _metric_numbers(found) for kind, found in names.items()}
        rounds = 0 if "messages" in shape.without else shape.rounds
        self.rounds = nn.ModuleList(RelationalConvolution(width) for _ in range(rounds))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(rounds))
        self.pool_own = KindPool(len(self.kinds), width, group)
        self.pool = KindPool(len(self.kinds), 2 * width, group)
        self.votes = Votes()
        pooled = len(self.kinds) * group + Votes.width
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
        self.origin = nn.Sequential(
            nn.Linear(2 * width + group, width), nn.ReLU(), nn.Linear(width, 1)
        )
        self.origin_context = nn.Linear(pooled, group)

    def forward(self, batch: Batch) -> Output:
        batch = reduced(batch, self.shape.without)
        start = torch.cat([self.encode(kind, self._hide(kind, batch)) for kind in self.kinds])
        both = torch.cat([start, self._propagate(start, batch)], dim=1)
        pooled = self.pool(both, batch)
        heard, causes, categories = self.votes(batch.fired)
        own = self._flat(self.pool_own(start, batch), heard, causes)
        certain, named = self.votes.certain(heard), self.votes.named(heard)
        flagged = self.votes.flagged(heard)
        if self.training and self.shape.dropout > 0:
            # A fault must be known by its other effects too, where its contract is not measured.
            # Whether there is one is not asked without them: that makes false alarms of models
            # unlike those of training.
            heard, causes, categories = self.votes(self._silenced(batch.fired))
        flat = self._flat(pooled, heard, causes)
        parts = _squared_distances(pooled, self.prototypes)
        context = self.origin_context(flat)[batch.graph_of]
        return Output(
            faulty=self.faulty(own).squeeze(-1) + flagged,
            category=self.category(flat) + self.votes.category * categories,
            cause=self.votes.cause * causes - parts.sum(dim=-1),
            parts=parts,
            origin=self.origin(torch.cat([both, context], dim=1)).squeeze(-1),
            pooled=pooled.flatten(1),
            certain=certain,
            named=named,
        )

    def _propagate(self, state: torch.Tensor, batch: Batch) -> torch.Tensor:
        weight = batch.edge_weight
        if self.training and self.shape.dropout > 0:
            # Families differ in their edges (norm order, cache): none may be indispensable.
            weight = weight * (torch.rand_like(weight) >= self.shape.dropout)
        for convolution, norm in zip(self.rounds, self.norms, strict=True):
            state = state + torch.relu(convolution(norm(state), batch, weight))
        return state

    def _silenced(self, fired: torch.Tensor) -> torch.Tensor:
        """The same, without any contract for some of the graphs."""
        return fired * (torch.rand(len(fired), 1) >= SILENCED)

    def _flat(
        self, pooled: torch.Tensor, heard: torch.Tensor, causes: torch.Tensor
    ) -> torch.Tensor:
        if self.training and self.shape.dropout > 0:
            pooled = drop_kinds(pooled, self.shape.dropout)
        return torch.cat([pooled.flatten(1), heard, causes], dim=1)

    def fit_scale(self, kind: str, values: torch.Tensor) -> None:
        """Set a kind's standardisation from the training samples' features (nodes, features)."""
        found = self.standardise[_key(kind)]
        assert isinstance(found, Standardise)
        found.fit(values)

    def encode(self, kind: str, values: torch.Tensor) -> torch.Tensor:
        """(nodes, features) of one kind -> (nodes, hidden)."""
        return self.encoders[_key(kind)](self.standardise[_key(kind)](values))

    def _hide(self, kind: str, batch: Batch) -> torch.Tensor:
        """A kind's features; in training some metrics of a graph are made absent (all zero), as
        they are on models that do not have them."""
        values = batch.x[kind]
        if not self.training or self.shape.dropout == 0:
            return values
        numbers = self._metric_of[kind]
        graphs = batch.graph_of[batch.kind_of == self.kinds.index(kind)]
        kept = torch.rand(batch.graphs, int(numbers.max()) + 1) >= self.shape.dropout
        return values * kept[:, numbers].float()[graphs]


def _squared_distances(points: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(G, kinds, group) and (P, kinds, group) -> (G, P, kinds), by their scalar products."""
    product = torch.einsum("gkw,pkw->gpk", points, others)
    lengths = points.square().sum(-1)[:, None] + others.square().sum(-1)[None]
    return (lengths - 2 * product).clamp(min=0)


def cause_log_probabilities(output: Output, temperature: float = 1.0) -> torch.Tensor:
    """(G, 45) log probability of each root cause given its category."""
    member = nn.functional.one_hot(torch.tensor(CAUSE_CATEGORY), len(CATEGORY_NAMES)).bool()
    logits = output.cause / temperature
    split = logits[:, None, :].masked_fill(~member.T[None], float("-inf"))
    total = split.logsumexp(dim=-1)
    return logits - total[:, list(CAUSE_CATEGORY)]
