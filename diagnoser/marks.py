"""What is seen once and stands: how a training began, weights that jumped, a limit that was lifted.

A training from a random start shows it: every norm's gamma is still exactly 1, every beta 0. What
its other weights are then is the initialisation's doing and nobody else's, and lies within narrow
bounds. Later on weights change by what the optimizer adds: one whose size changes by ten times more
was changed by something else. A gradient that is clipped never exceeds what it is clipped to, until
the clipping is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diagnoser.rules import Moment, Rule, rules_at

if TYPE_CHECKING:
    import numpy.typing as npt

    from diagnoser.columns import Columns
    from probe.schema import Frame

BEYOND_UPDATES = 10.0
"""A change is a jump from this many times what the updates measured before and after it would make.
Healthy training reaches 8, where a schedule moves between two samples that lie far apart."""

FAR_LARGER = 3.0
"""Expanding and contracting weights of a layer are begun within less of each other."""

_PAIRED = {"in_weight": "out_weight", "out_weight": "in_weight"}

EXACT = 1e-4
"""A clipped norm lies within this of the limit, which people set to one or two digits."""

SMALLEST = 2.0**-30
"""What is left of weights set to zero, as a factor."""

AS_BUILT = 1e-5
"""Gamma and beta of a norm that no step has moved, within this of 1 and 0."""


@dataclass(frozen=True)
class Mark:
    """A rule met once, at a column. ``value``: as measured; of a jump, or of what exceeds a limit,
    its log2 factor."""

    column: int
    rank: int
    rule: Rule
    value: float
    step: int


class Marks:
    """Looks at every frame's values once. Feed it every frame, in order."""

    def __init__(self, columns: Columns) -> None:
        self._found: dict[tuple[int, int], Mark] = {}
        self._last: npt.NDArray[np.float32] | None = None
        self._step = 0
        self._bind(columns)

    def _bind(self, columns: Columns) -> None:
        self._columns = columns
        self._starts = self._ruled("start")
        self._jumps = self._ruled("jump")
        self._moves = self._ruled("moved")
        self._lifts = self._ruled("lifted")
        self._update_of = self._beside(self._jumps + self._moves, "update_ratio")
        self._limit_of = self._beside(self._lifts, "clip_level")
        self._other_of = {
            place: self._beside([(place, rank, rule)], _PAIRED[rule.metric])[place]
            for place, rank, rule in self._jumps
            if rule.metric in _PAIRED
        }

    def _beside(self, ruled: list[tuple[int, int, Rule]], metric: str) -> dict[int, int | None]:
        """Where another metric of the same site stands."""
        sites = self._columns.sites
        there = {
            sites[place]: place
            for place, found in enumerate(self._columns.metrics)
            if found.name == metric
        }
        return {place: there.get(sites[place]) for place, *_ in ruled}

    def _ruled(self, moment: Moment) -> list[tuple[int, int, Rule]]:
        columns = self._columns
        return [
            (place, rank, rule)
            for place, metric in enumerate(columns.metrics)
            for rank, rule in rules_at(moment, columns.nodes[place], metric.name)
        ]

    def rebind(self, columns: Columns, source: npt.NDArray[np.int64]) -> None:
        """Go on under a later header; ``source``: where each of its columns was, -1: nowhere."""
        moved = {int(old): new for new, old in enumerate(source) if old >= 0}
        self._found = {
            (moved[mark.column], rank): Mark(
                moved[mark.column], rank, mark.rule, mark.value, mark.step
            )
            for (_, rank), mark in self._found.items()
            if mark.column in moved
        }
        if self._last is not None:
            last = np.full(len(source), np.nan, dtype=np.float32)
            last[source >= 0] = self._last[source[source >= 0]]
            self._last = last
        self._bind(columns)

    def update(self, frame: Frame, raw: npt.NDArray[np.float32]) -> None:
        if self._last is None:
            if self._as_built(raw):
                for place, rank, rule in self._starts:
                    if rule.low <= raw[place] <= rule.high:
                        self._add(Mark(place, rank, rule, float(raw[place]), frame.step))
            self._last = raw.copy()
        else:
            steps = max(1, frame.step - self._step)
            for place, rank, rule in self._jumps:
                factor = self._jump(place, raw, steps)
                if rule.low <= abs(factor) <= rule.high:
                    self._add(Mark(place, rank, rule, factor, frame.step))
            for place, rank, rule in self._moves:
                moved = self._move(place, raw, steps)
                if rule.low <= moved <= rule.high:
                    self._add(Mark(place, rank, rule, moved, frame.step))
            for place, rank, rule in self._lifts:
                factor = self._beyond_limit(place, raw)
                if rule.low <= factor <= rule.high:
                    self._add(Mark(place, rank, rule, factor, frame.step))
            self._last = np.where(np.isnan(raw), self._last, raw)
        self._step = frame.step

    def _add(self, mark: Mark) -> None:
        self._found.setdefault((mark.column, mark.rank), mark)

    def _as_built(self, raw: npt.NDArray[np.float32]) -> bool:
        seen = 0
        for place, metric in enumerate(self._columns.metrics):
            if metric.name == "gamma_norm" and np.isfinite(raw[place]):
                seen += 1
                if abs(raw[place] - 1.0) > AS_BUILT:
                    return False
            elif metric.name in ("beta_mean", "beta_spread") and abs(raw[place]) > AS_BUILT:
                return False
        return seen > 0

    def _jump(self, place: int, raw: npt.NDArray[np.float32], steps: int) -> float:
        """log2 of how much a column grew since the last frame, NaN where its updates explain it or
        were not measured."""
        update = self._update_of[place]
        assert self._last is not None
        before, now = float(self._last[place]), float(raw[place])
        if update is None or not (before > 0.0 and now >= 0.0):
            return np.nan
        # Of weights that were cut down an update is large beside what is left, not what was there.
        rates = [
            float(seen[update]) * min(1.0, float(seen[place]) / before)
            for seen in (self._last, raw)
        ]
        measured = [rate for rate in rates if not np.isnan(rate)]
        if not measured:
            return np.nan
        factor = float(np.log2(max(now / before, SMALLEST)))
        explained = float(np.log2(np.e)) * max(measured) * steps * self._smaller(place, before)
        return factor if abs(factor) > BEYOND_UPDATES * explained else np.nan

    def _smaller(self, place: int, size: float) -> float:
        """How many times larger the other weights of an update are, where they are far larger: what
        began at zero grows by as much as they move."""
        other = self._other_of.get(place)
        assert self._last is not None
        share = float(self._last[other]) / size if other is not None else 1.0
        return share if share > FAR_LARGER else 1.0

    def _move(self, place: int, raw: npt.NDArray[np.float32], steps: int) -> float:
        """How far weights moved since the last frame, against their size; NaN where updates explain
        it or were not measured."""
        update = self._update_of[place]
        assert self._last is not None
        if update is None:
            return np.nan
        explained = BEYOND_UPDATES * float(np.fmax(self._last[update], raw[update])) * steps
        return float(raw[place]) if 0.0 < explained < raw[place] else np.nan

    def _beyond_limit(self, place: int, raw: npt.NDArray[np.float32]) -> float:
        """log2 of a gradient's norm over what it was clipped to before; NaN where it was not."""
        limit = self._limit_of[place]
        assert self._last is not None
        if limit is None or not raw[place] > 0.0:
            return np.nan
        level = float(self._last[limit])
        if not level > 0.0 or abs(level / float(f"{level:.1e}") - 1.0) > EXACT:
            return np.nan
        return float(np.log2(raw[place] / level))

    def found(self) -> list[Mark]:
        """What was seen until now."""
        return list(self._found.values())
