"""Which features each node kind has: fixed by the probe's catalogue, not by one run's header.

Every metric of a kind gives the same statistics in the same order, whether the model measures it
or not (then it is *absent*, which is itself a feature), so that one set of weights fits any model.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from probe.catalogue import METRICS
from probe.nodes import kind_of

if TYPE_CHECKING:
    from probe.schema import Header, Metric

CONTRACT_STATISTICS: tuple[str, ...] = (
    "present",
    "level",
    "peak",
    "change",
    "jump",
    "peer",
    "value",
)
"""``level``, ``peak``: log10 of the median (largest) magnitude over its tolerance in the window,
0 while a tenth of it or less. ``value`` keeps the sign; of a residual, which has none, it is the
level."""

STATISTICS: tuple[str, ...] = (
    "present",
    "spread",
    "trend",
    "change",
    "jump",
    "peer",
)
"""``change``: window against the run's own past. ``jump``: largest shift so far. ``peer``: against
the same metric in the other layers. ``trend``: per hundred steps."""

REVISION = "2"
"""Of how features are computed: another one wherever the same names come to mean something else."""

COMPARABLE = frozenset(
    {
        "gamma_norm",
        "gamma_mean",
        "beta_mean",
        "beta_spread",
        "grad_weight_cosine",
        "grad_limited",
        "weight_kurtosis",
        "weight_gap",
        "type_gap",
        "in_level",
        "out_level",
        "loss_excess",
        "clip_level",
        "head_similarity",
        "head_utilisation",
        "cosine",
    }
)
"""Statistics whose plain value means the same in any model; they have ``value`` too. Others are
told only relative to the run itself, or the network learns models instead of faults."""


class SchemaMismatch(ValueError):
    """A run's metrics are not those of this version. Names the difference."""


CONTRACTS_ONLY = frozenset({"router"})
"""Node kinds that the network does not know. What their contracts say is told as evidence."""


@lru_cache(maxsize=1)
def node_kinds() -> tuple[str, ...]:
    """The node kinds of the catalogue that the network knows, in its order."""
    found = dict.fromkeys(node for metric in METRICS for node in metric.nodes)
    return tuple(node for node in found if node not in CONTRACTS_ONLY)


@lru_cache(maxsize=64)
def metrics_of(kind: str) -> tuple[Metric, ...]:
    """The catalogue's metrics of a node kind, in its order."""
    return tuple(metric for metric in METRICS if kind in metric.nodes)


def statistics_of(metric: Metric) -> tuple[str, ...]:
    """The statistics that make a metric's features."""
    if metric.contract:
        return CONTRACT_STATISTICS
    return (*STATISTICS, "value") if metric.name in COMPARABLE else STATISTICS


@lru_cache(maxsize=64)
def feature_names(kind: str) -> tuple[str, ...]:
    """``METRIC:STATISTIC`` in the order of the kind's feature vector."""
    return tuple(
        f"{metric.name}:{statistic}"
        for metric in metrics_of(kind)
        for statistic in statistics_of(metric)
    )


@lru_cache(maxsize=1)
def all_feature_names() -> dict[str, tuple[str, ...]]:
    """Feature names of every node kind."""
    return {kind: feature_names(kind) for kind in node_kinds()}


@lru_cache(maxsize=64)
def definitions(kind: str) -> tuple[str, ...]:
    """What decides the features of each metric of a kind: ``NAME/FORM/CONTRACT/TOLERANCE``."""
    return tuple(f"{m.name}/{m.form}/{m.contract}/{m.tolerance}" for m in metrics_of(kind))


def digest() -> str:
    """Short checksum of all feature names, definitions' forms and tolerances, and the revision."""
    parts = [f"{kind}/{text}" for kind in node_kinds() for text in definitions(kind)]
    parts += [*CONTRACT_STATISTICS, *STATISTICS, *sorted(COMPARABLE), REVISION]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def difference(
    theirs: dict[str, tuple[str, ...]], ours: dict[str, tuple[str, ...]], limit: int = 6
) -> str:
    """Which names only one side has, in words; empty where none."""
    left = {f"{kind}/{name}" for kind, names in theirs.items() for name in names}
    right = {f"{kind}/{name}" for kind, names in ours.items() for name in names}
    parts = []
    for text, names in (("unknown here", left - right), ("missing there", right - left)):
        if names:
            shown = sorted(names)
            more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
            parts.append(f"{text}: {', '.join(shown[:limit])}{more}")
    return "; ".join(parts)


def check_header(header: Header) -> None:
    """Raises :class:`SchemaMismatch` where the run has a metric that is not in the catalogue, or is
    something else there.

    Compared for the node kinds that this run has: names, forms and which are contracts. What the
    run's probe does not know yet is not measured: traces outlive the version that wrote them.
    """

    def describe(metric: Metric) -> str:
        return f"{metric.name} ({'contract' if metric.contract else metric.form})"

    kinds = {kind_of(site.node) for site in header.anatomy.sites}
    ours = {kind: {metric.name: describe(metric) for metric in metrics_of(kind)} for kind in kinds}
    theirs = {
        kind: {m.name: describe(m) for m in header.metrics if kind in m.nodes}
        for kind in sorted(kinds)
    }
    found = difference(
        {kind: tuple(known.values()) for kind, known in theirs.items()},
        {
            kind: tuple(ours[kind][name] for name in known if name in ours[kind])
            for kind, known in theirs.items()
        },
    )
    if found:
        raise SchemaMismatch(
            f"run {header.run} measures other metrics than this diagnoser knows ({found}): "
            "use the same defaultpp-monitor for the training and the diagnosis"
        )
