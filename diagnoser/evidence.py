"""The sentences a person reads: which contracts are broken, then what changed most.

Contracts come first, in causal order. Then, among the nodes of the suspected category, the
metrics that shifted most against the run's own past, or that differ most from the other layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diagnoser.diagnosis import Evidence
from diagnoser.phrases import CONTRACT_PHRASES, layer_list
from diagnoser.taxonomy import categories
from probe.nodes import kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diagnoser.columns import Columns
    from diagnoser.contracts import Firing
    from diagnoser.features import ColumnState

MOST_CONTRACTS = 6
MOST_CHANGES = 3
NOTABLE = 8.0
"""Robust standard units from which a shift or a difference between layers is worth a sentence."""


def number(value: float) -> str:
    """Three significant digits, as a person writes them."""
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else ("infinite" if value > 0 else "minus infinite")
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.1e}"


def factor_of(exponent: float) -> str:
    """2 ** ``exponent``; 0 from 2 ** -30 on, which is nothing."""
    return "0" if exponent <= -30.0 else number(2.0 ** min(exponent, 30.0))


def percent(value: float) -> str:
    """A share as a percentage; two digits where it is small."""
    share = 100.0 * value
    return f"{share:.0f} %" if share >= 1 else f"{share:.2g} %"


def describe(firings: Sequence[Firing], columns: Columns) -> Evidence:
    """The sentence for one contract that fires, at one site or in several layers."""
    worst = max(firings, key=lambda firing: abs(firing.value))
    since = min(firing.since_step for firing in firings)
    metric = columns.header.metric(worst.metric, worst.node)
    expected = metric.healthy if metric is not None else "0"
    phrase = CONTRACT_PHRASES.get((kind_of(worst.node), worst.metric)) or CONTRACT_PHRASES.get(
        ("", worst.metric)
    )
    if phrase is None and metric is not None:
        phrase = f"{metric.meaning}: {{value}}"
    phrase = phrase or "{value}"
    # A factor is told where the metric is its logarithm, or what it differs from 1 by.
    is_factor = expected == "0" and ("{factor}" in phrase or "{gain}" in phrase)
    said = phrase.format(
        value=number(worst.value),
        percent=percent(worst.value),
        size=number(abs(worst.value)),
        factor=factor_of(worst.value),
        gain=number(1.0 + worst.value),
        direction="over" if worst.value > 0 else "under",
    )
    layers = tuple(firing.layer for firing in firings if firing.layer is not None)
    many = len(firings) > 1 and len(layers) == len(firings)
    where = f"{worst.node} of {layer_list(layers)}" if many else worst.site
    when = f"at step {since}, as the run began" if worst.lasting else f"since step {since}"
    text = f"At {where} {said} (expected {1 if is_factor else expected}), {when}"
    return Evidence(worst.site, worst.metric, worst.value, expected, since, text)


def contracts_first(
    firings: tuple[Firing, ...], columns: Columns, category: str | None
) -> list[Evidence]:
    """One sentence per broken contract, those of the category found before the others.

    A contract broken in several layers is told once, with the worst layer's value.
    """
    together: dict[tuple[int, str, str, str], list[Firing]] = {}
    for firing in firings:
        stack = firing.site.rpartition(".")[0]
        together.setdefault((firing.rank, stack, firing.node, firing.metric), []).append(firing)

    def order(group: list[Firing]) -> tuple[bool, int]:
        speaks = any(cause.split("/")[0] == category for cause in group[0].causes)
        return (not speaks, group[0].rank)

    return [describe(group, columns) for group in sorted(together.values(), key=order)][
        :MOST_CONTRACTS
    ]


def strongest_changes(
    columns: Columns, state: ColumnState, category: str, last_step: int
) -> list[Evidence]:
    """Sentences on the metrics of the category's nodes that moved or stand out most."""
    nodes = categories()[category].nodes
    chosen = np.array([kind in nodes for kind in columns.kinds]) & ~columns.contract
    moved = np.where(chosen, np.nan_to_num(np.abs(state.jump)), 0.0)
    apart = np.where(chosen, np.nan_to_num(np.abs(state.peer)), 0.0)
    strength = np.maximum(moved, apart)
    found = []
    for place in np.argsort(-strength, kind="stable")[:MOST_CHANGES]:
        if strength[place] < NOTABLE:
            break
        if moved[place] >= apart[place]:
            found.append(_moved(columns, state, int(place)))
        else:
            found.append(_apart(columns, state, int(place), last_step))
    return found


def _moved(columns: Columns, state: ColumnState, place: int) -> Evidence:
    column, metric = columns.header.columns[place], columns.metrics[place]
    step = int(state.jump_step[place])
    before = number(columns.restore(float(state.baseline[place]), place))
    value = float(state.raw[place])
    text = (
        f"At {column.site} {metric.name.replace('_', ' ')} ({metric.meaning}) is {number(value)}, "
        f"after {before} before: a jump at about step {step}"
    )
    return Evidence(column.site, column.metric, value, metric.healthy, step, text)


def _apart(columns: Columns, state: ColumnState, place: int, last_step: int) -> Evidence:
    column, metric = columns.header.columns[place], columns.metrics[place]
    value = float(state.raw[place])
    side = "above" if state.peer[place] > 0 else "below"
    text = (
        f"At {column.site} {metric.name.replace('_', ' ')} ({metric.meaning}) is {number(value)}, "
        f"far {side} the other layers at step {last_step}"
    )
    return Evidence(column.site, column.metric, value, "like its peers", last_step, text)


def gather(
    columns: Columns,
    state: ColumnState,
    firings: tuple[Firing, ...],
    category: str | None,
    last_step: int,
) -> tuple[Evidence, ...]:
    """All sentences, the strongest first. Without a category only the broken contracts."""
    found = contracts_first(firings, columns, category)
    if category is not None:
        found += strongest_changes(columns, state, category, last_step)
    return tuple(found)
