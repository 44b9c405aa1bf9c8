"""What would tell two root causes apart on this run: contracts that speak for only one of them.

Pure; the rules are the diagnoser's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from diagnoser.rules import RULES, Rule
from diagnoser.taxonomy import root_causes
from monitor.formatting import number
from monitor.run_model import RunModel
from probe.nodes import kind_of


@dataclass(frozen=True)
class Clue:
    """A contract as evidence between two causes. ``met``: its rule holds in the newest sample."""

    chart: str
    value: float
    met: bool
    other: bool
    """Speaks for the alternative, if met; else for the cause found."""

    @property
    def against(self) -> bool:
        """Speaks against the alternative."""
        return self.met != self.other

    def sentence(self) -> str:
        """One line, the value first."""
        if not self.other:
            said = "fits the first alone"
        elif self.met:
            said = "out of bounds"
        else:
            said = "in bounds"
        return f"{self.chart} {number(self.value)}: {said}"


def clues(best: str, other: str, model: RunModel, step: int | None = None) -> tuple[Clue, ...]:
    """Contracts measured on this run that name one of two ``category/root_cause`` and not both.

    Those of the alternative come first: they are what one would look for, and count met or not.
    One of the cause found says something only if it is met: no fault sets off all its contracts.
    Values are those at ``step``, or the newest.
    """
    found = [*_clues(other, best, True, model, step), *_clues(best, other, False, model, step)]
    return tuple({clue.chart: clue for clue in reversed(found)}.values())[::-1]


def _clues(
    named: str, unnamed: str, other: bool, model: RunModel, step: int | None
) -> Iterable[Clue]:
    for rule in RULES:
        if rule.causes[0] != named or unnamed in rule.causes or rule.when:
            continue
        for chart in _charts(rule, model):
            value = _worst(rule, chart, model, step)
            met = _met(rule, value, _tolerance(chart, model))
            if not np.isnan(value) and (met or other):
                yield Clue(chart, value, met, other)


def _charts(rule: Rule, model: RunModel) -> list[str]:
    return [
        key
        for key, group in model.groups.items()
        if group.name == rule.metric
        and kind_of(group.node) in rule.nodes
        and not group.of_heads
        and model.measured(key)
    ]


def _worst(rule: Rule, chart: str, model: RunModel, step: int | None) -> float:
    """The value that comes nearest to meeting the rule: one that does, else the largest."""
    values = np.array(model.latest_values(chart, step))
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan")
    met = [v for v in values if _met(rule, float(v), _tolerance(chart, model))]
    return float(max(met or values, key=abs))


def _tolerance(chart: str, model: RunModel) -> float:
    metric = model.groups[chart].metric
    return metric.tolerance if metric is not None else 1e-3


def _met(rule: Rule, value: float, tolerance: float) -> bool:
    return abs(value) > tolerance and rule.low <= value <= rule.high


def check_of(key: str) -> str:
    """Where to look to confirm a root cause; empty for one the taxonomy does not know."""
    cause = root_causes().get(key)
    return cause.check if cause else ""
