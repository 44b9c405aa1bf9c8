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

from diagnoser.contracts import RULES, cause_table
from diagnoser.graph import RELATIONS
from diagnoser.taxonomy import CATEGORY_NAMES, ROOT_CAUSE_KEYS

if TYPE_CHECKING:
    from diagnoser.batch import Batch

CAUSE_CATEGORY: tuple[int, ...] = tuple(
    CATEGORY_NAMES.index(key.split("/")[0]) for key in ROOT_CAUSE_KEYS
)
"""Category's index of every root cause."""

UNRELIABLE = 0.01
"""A rule that is met in more than this share of healthy samples is not listened to."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. ``rounds`` 0 switches message passing off (the ablation)."""

    hidden: int = 32
    group: int = 16
    rounds: int = 3
    dropout: float = 0.15

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

    def forward(self, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        per_relation = self.relations(x).reshape(-1, self.width)
        rows = batch.edge_index[0] * len(RELATIONS) + batch.edge_type
        messages = per_relation[rows] * batch.edge_weight[:, None]
        gathered = self.propagate(batch.edge_index, messages=messages, size=(len(x), len(x)))
        return self.own(x) + gathered

    def message(self, messages: torch.Tensor) -> torch.Tensor:
        return messages


class Votes(nn.Module):
    """What the rules met say, in causal order: 1 for the first rule's first cause, half as much
    for every later rule. Rules that also speak on healthy training runs are muted.

    Their voice enters every head directly, with weights that start large and are then trained: a
    fault too rare to be learnt, or on a model unlike those seen, is still named by its contract.
    """

    causes: torch.Tensor
    reliable: torch.Tensor
    hard: torch.Tensor
    members: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("causes", torch.from_numpy(cause_table()))
        self.register_buffer("reliable", torch.ones(len(RULES)))
        hard = torch.tensor([float(not rule.soft) for rule in RULES])
        self.register_buffer("hard", hard, persistent=False)
        members = nn.functional.one_hot(torch.tensor(CAUSE_CATEGORY), len(CATEGORY_NAMES))
        self.register_buffer("members", members.float())
        self.detection = nn.Parameter(1.5 + 4.5 * hard)
        self.category = nn.Parameter(torch.tensor(4.0))
        self.cause = nn.Parameter(torch.tensor(4.0))

    width = len(RULES) + len(ROOT_CAUSE_KEYS)

    def fit(self, fired_when_healthy: torch.Tensor) -> None:
        """Mute rules met in too many healthy samples, given (samples, rules)."""
        if len(fired_when_healthy):
            self.reliable.copy_((fired_when_healthy.mean(dim=0) <= UNRELIABLE).float())

    def forward(self, fired: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(G, rules) heard, (G, 45) votes for root causes, (G, 12) for categories."""
        heard = fired * self.reliable
        earlier = heard.cumsum(dim=1) - heard
        weight = heard * 0.5**earlier
        causes = (weight[:, :, None] * self.causes[None]).amax(dim=1)
        categories = (causes[:, :, None] * self.members[None]).amax(dim=1)
        return heard, causes, categories

    def certain(self, heard: torch.Tensor) -> torch.Tensor:
        """(G,) bool: a reliable rule is met that no healthy model meets."""
        return (heard * self.hard).amax(dim=1) > 0

    def flagged(self, heard: torch.Tensor) -> torch.Tensor:
        """(G,) what the strongest rule adds to the detection logit."""
        return (heard * self.detection).amax(dim=1)


class Standardise(nn.Module):
    """Takes the training mean from a kind's features, divides by their spread (not under 0.5:
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
            self.scale.copy_(values.std(dim=0, unbiased=False).clamp(min=0.5))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return ((values - self.mean) / self.scale).clamp(-5.0, 5.0)


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
            {_key(kind): Standardise(len(found)) for kind, found in names.items()}
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
        self.rounds = nn.ModuleList(RelationalConvolution(width) for _ in range(shape.rounds))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(shape.rounds))
        self.group_weight = nn.Parameter(torch.empty(len(self.kinds), 4 * width, group))
        self.group_bias = nn.Parameter(torch.zeros(len(self.kinds), group))
        nn.init.normal_(self.group_weight, std=(4 * width) ** -0.5)
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
        start = torch.cat([self.encode(kind, self._hide(kind, batch)) for kind in self.kinds])
        state = start
        for convolution, norm in zip(self.rounds, self.norms, strict=True):
            state = state + torch.relu(convolution(norm(state), batch))
        both = torch.cat([start, state], dim=1)
        pooled = self._pool(both, batch)
        heard, causes, categories = self.votes(batch.fired)
        flat = torch.cat([self._drop_kinds(pooled).flatten(1), heard, causes], dim=1)
        parts = (pooled[:, None] - self.prototypes[None]).square().sum(dim=-1)
        context = self.origin_context(flat)[batch.graph_of]
        return Output(
            faulty=self.faulty(flat).squeeze(-1) + self.votes.flagged(heard),
            category=self.category(flat) + self.votes.category * categories,
            cause=self.votes.cause * causes - parts.sum(dim=-1),
            parts=parts,
            origin=self.origin(torch.cat([both, context], dim=1)).squeeze(-1),
            pooled=pooled.flatten(1),
            certain=self.votes.certain(heard),
        )

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
        return values * kept[graphs][:, numbers]

    def _drop_kinds(self, pooled: torch.Tensor) -> torch.Tensor:
        """In training now and then hides a whole node kind, so that no answer hangs on the mere
        presence of a component that a family lacks."""
        if not self.training or self.shape.dropout == 0:
            return pooled
        kept = torch.rand(pooled.shape[:2], device=pooled.device) >= self.shape.dropout
        return pooled * kept[:, :, None]

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
        there = torch.bincount(cell, minlength=cells).view(batch.graphs, -1, 1) > 0
        # A kind that the model lacks is 0, just as one that training hides.
        return torch.tanh(found + self.group_bias) * there


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
