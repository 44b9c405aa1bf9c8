"""The sentences a person reads: which contracts are broken, then what changed most.

Contracts come first, in causal order. Then, among the nodes of the suspected category, the
metrics that shifted most against the run's own past, or that differ most from the other layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diagnoser.diagnosis import Evidence
from diagnoser.phrases import CONTRACT_PHRASES
from diagnoser.taxonomy import categories

if TYPE_CHECKING:
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


def percent(value: float) -> str:
    """A share as a percentage; two digits where it is small."""
    share = 100.0 * value
    return f"{share:.0f} %" if share >= 1 else f"{share:.2g} %"


def describe(firing: Firing, columns: Columns) -> Evidence:
    """The sentence for a contract that fires."""
    metric = columns.header.metric(firing.metric, firing.node)
    expected = metric.healthy if metric is not None else "0"
    phrase = CONTRACT_PHRASES.get((firing.node, firing.metric)) or CONTRACT_PHRASES.get(
        ("", firing.metric)
    )
    if phrase is None and metric is not None:
        phrase = f"{metric.meaning}: {{value}}"
    said = (phrase or "{value}").format(
        value=number(firing.value),
        percent=percent(firing.value),
        size=number(abs(firing.value)),
        factor=number(2.0 ** float(np.clip(firing.value, -30, 30))),
        gain=number(1.0 + firing.value),
        direction="over" if firing.value > 0 else "under",
    )
    text = f"At {firing.site} {said} (expected {expected}), since step {firing.since_step}"
    return Evidence(firing.site, firing.metric, firing.value, expected, firing.since_step, text)


def contracts_first(
    firings: tuple[Firing, ...], columns: Columns, category: str | None
) -> list[Evidence]:
    """One sentence per broken contract and site, those of the category found before the others."""

    def order(firing: Firing) -> tuple[bool, int, int]:
        speaks = any(cause.split("/")[0] == category for cause in firing.causes)
        return (not speaks, firing.rank, -1 if firing.layer is None else firing.layer)

    return [describe(firing, columns) for firing in sorted(firings, key=order)[:MOST_CONTRACTS]]


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
