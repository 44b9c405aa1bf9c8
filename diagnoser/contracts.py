"""Which contracts fire, where and since when, and what they say by themselves.

A contract fires when its magnitude was over the tolerance in at least two of its last three
measurements; one that tells how the run began, from its first measurement over it. What those that
fire speak for is told by :mod:`diagnoser.rules`. A few metrics that are no contracts have a rule
too: they fire where they lie within its bounds. What is seen once and stands is in
:mod:`diagnoser.marks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diagnoser.conditions import before
from diagnoser.marks import Marks
from diagnoser.rules import RULES, Rule, rule_for, rules_on

if TYPE_CHECKING:
    import numpy.typing as npt

    from diagnoser.columns import Columns
    from probe.schema import Frame

RECENT = 3
NEEDED = 2


_LASTING = frozenset((node, rule.metric) for rule in RULES if rule.lasting for node in rule.nodes)


@dataclass(frozen=True)
class Firing:
    """A contract that fires at a site. ``rank`` is its place in the causal order."""

    site: str
    node: str
    layer: int | None
    metric: str
    value: float
    since_step: int
    rank: int
    causes: tuple[str, ...]
    lasting: bool = False


class ContractWatch:
    """Remembers which of a contract's last three measurements were over its tolerance, and of every
    metric the last two values. Feed it every frame.

    A lasting contract keeps the value and the step at which it was first seen broken.
    """

    def __init__(self, columns: Columns) -> None:
        self._marks = Marks(columns)
        self._frames = 0
        self._start(columns)

    def _start(self, columns: Columns) -> None:
        self.columns = columns
        self._sites = columns.sites
        count = len(columns)
        self._over = np.zeros((count, RECENT), dtype=bool)
        self._since = np.full(count, -1, dtype=np.int64)
        self._value = np.full(count, np.nan, dtype=np.float32)
        self._before = self._value.copy()
        # Frame at which a column was last measured, and the time before.
        self._seen = np.full((count, 2), -1, dtype=np.int64)
        self._lasting = np.array(
            [
                (kind, metric.name) in _LASTING
                for kind, metric in zip(columns.kinds, columns.metrics, strict=True)
            ],
            dtype=bool,
        )
        self._lasts = np.zeros(count, dtype=bool)
        self._at_site: dict[str, list[int]] = {}
        for place, site in enumerate(self._sites):
            self._at_site.setdefault(site, []).append(place)
        self._bounded: list[tuple[int, float, float]] = []
        for number in np.flatnonzero(~columns.contract):
            for _, rule in rules_on(columns.nodes[number], columns.metrics[number].name):
                self._bounded.append((int(number), rule.low, rule.high))
        self._watched = columns.contract.copy()
        self._watched[[number for number, _, _ in self._bounded]] = True

    def rebind(self, columns: Columns) -> None:
        """Go on under a later header: columns it shares keep their state."""
        place = {key: number for number, key in enumerate(self.columns.keys)}
        source = np.array([place.get(key, -1) for key in columns.keys], dtype=np.int64)
        old = self._over, self._since, self._value, self._lasts, self._before, self._seen
        self._start(columns)
        known = source >= 0
        self._over[known] = old[0][source[known]]
        self._since[known] = old[1][source[known]]
        self._value[known] = old[2][source[known]]
        self._lasts[known] = old[3][source[known]]
        self._before[known] = old[4][source[known]]
        self._seen[known] = old[5][source[known]]
        self._marks.rebind(columns, source)

    def update(self, frame: Frame) -> None:
        raw = self.columns.values(frame)
        self._marks.update(frame, raw)
        measured = ~np.isnan(raw)
        with np.errstate(invalid="ignore"):
            over = np.abs(raw) > self.columns.tolerance_at(raw)
        over &= measured & self.columns.contract
        for number, low, high in self._bounded:
            over[number] |= low <= raw[number] <= high
        rows = np.flatnonzero(measured & self._watched & ~self._lasts)
        self._over[rows, :-1] = self._over[rows, 1:]
        self._over[rows, -1] = over[rows]
        fresh = measured & ~self._lasts
        self._before[fresh] = self._value[fresh]
        self._value[fresh] = raw[fresh]
        self._seen[fresh, 1] = self._seen[fresh, 0]
        self._seen[fresh, 0] = self._frames
        self._frames += 1
        started = rows[over[rows] & (self._since[rows] < 0)]
        self._since[started] = frame.step
        ended = rows[~self._over[rows].any(axis=1)]
        self._since[ended] = -1
        self._lasts |= over & self._lasting

    def mask(self) -> npt.NDArray[np.bool_]:
        """Which columns fire now, shape (C,)."""
        return (self._over.sum(axis=1) >= NEEDED) | self._lasts

    def firings(self) -> tuple[Firing, ...]:
        """Contracts that fire now, the earliest in causal order first, then by layer."""
        found = []
        for mark in self._marks.found():
            started = mark.rule.moment == "start"
            found.append(
                self._firing(mark.column, mark.value, mark.step, (mark.rank, mark.rule), started)
            )
        for number in map(int, np.flatnonzero(self.mask())):
            value, since = float(self._value[number]), int(self._since[number])
            node, metric = self.columns.nodes[number], self.columns.metrics[number].name
            met = rule_for(node, metric, self._values_beside(number))
            found.append(self._firing(number, value, since, met, bool(self._lasts[number])))
        return tuple(sorted(found, key=lambda f: (f.rank, -1 if f.layer is None else f.layer)))

    def _firing(
        self, place: int, value: float, since: int, met: tuple[int, Rule] | None, lasting: bool
    ) -> Firing:
        return Firing(
            site=self._sites[place],
            node=self.columns.nodes[place],
            layer=self.columns.layers[place],
            metric=self.columns.metrics[place].name,
            value=value,
            since_step=since,
            rank=met[0] if met else len(RULES),
            causes=met[1].causes if met else (),
            lasting=lasting,
        )

    def _values_beside(self, number: int) -> dict[str, float]:
        """The last two values of the metrics of a column's site, by name; without those that are no
        longer measured where it is."""
        found = {}
        for place in self._at_site[self._sites[number]]:
            if self._seen[place, 0] >= self._seen[number, 1]:
                name = self.columns.metrics[place].name
                found[name] = float(self._value[place])
                found[before(name)] = float(self._before[place])
        return found


def fired_rules(firings: tuple[Firing, ...]) -> npt.NDArray[np.float32]:
    """Which rules are met anywhere in the model, shape ``(len(RULES),)``, 0 or 1."""
    result = np.zeros(len(RULES), dtype=np.float32)
    for firing in firings:
        if firing.rank < len(RULES):
            result[firing.rank] = 1.0
    return result


@dataclass(frozen=True)
class ContractVerdict:
    """What the contracts alone would answer: the baseline of the evaluation."""

    faulty: bool
    category: str | None = None
    root_cause: str | None = None
    layers: tuple[int, ...] = ()


def verdict(firings: tuple[Firing, ...]) -> ContractVerdict:
    """The earliest rule's first cause, and the layers at which that contract fires."""
    ruled = [firing for firing in firings if firing.causes]
    if not ruled:
        return ContractVerdict(faulty=bool(firings))
    first = ruled[0]
    category, cause = first.causes[0].split("/")
    layers = {
        firing.layer for firing in ruled if firing.rank == first.rank and firing.layer is not None
    }
    return ContractVerdict(True, category, cause, tuple(sorted(layers)))
