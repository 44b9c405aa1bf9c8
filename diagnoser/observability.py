"""What a fault moves: a faulty run against its clean twin, metric by metric.

The two runs are the same up to the fault, so that every later difference is the fault's doing. An
*effect* is that difference in units of the twin's own variation from one frame to the next (or of
the smallest change that counts, where that is larger). A healthy change of a training (another
learning rate, other batches, frozen parts) moves metrics too: the *clean spread* of a metric is
what 95 % of the healthy changes stay within. A run shows its fault where a contract fires, where a
metric moves so many clean spreads as only 5 % of the healthy changes move any, or where one is
measured in only one of the two runs that hardly any healthy change makes appear or vanish.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from diagnoser.features import nan_median

Floats = npt.NDArray[np.float32]

MOST = 100.0
"""Largest effect told, in units."""

CLEAN_SHARE = 0.95
"""Share of the healthy changes that stay within: the clean spread of each metric, the threshold of
all together."""

METRICS_TOLD = 4


@dataclass(frozen=True)
class Recorded:
    """The frames of a run, on the scale on which differences compare
    (:meth:`diagnoser.columns.Columns.transform`)."""

    steps: npt.NDArray[np.int64]
    """(F,)"""
    keys: tuple[str, ...]
    """C columns, ``site/metric``."""
    names: tuple[str, ...]
    """Of the same columns, ``kind/metric``."""
    floor: Floats
    """(C,) smallest change that counts."""
    values: Floats
    """(F, C), NaN where not measured."""
    fired: tuple[frozenset[str], ...]
    """After each frame the columns whose contract fires and by itself makes a run faulty."""


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to a run. ``cause``: ``category/root_cause``, None for a healthy change."""

    id: str
    family: str
    cause: str | None = None
    operator: str | None = None
    value: str | float | None = None


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What a branch shows beside its clean twin. ``fired``, ``effects``: by ``kind/metric``."""

    label: Label
    frames: int
    """After the fault (or the change), in both runs."""
    fired: tuple[str, ...]
    """Contracts that fire in the branch where the twin's do not."""
    effects: dict[str, float]
    """How far each metric moved, in units, where it moved most."""
    presence: tuple[str, ...] = ()
    """``NAME new`` of a metric that only the branch measures, ``NAME gone`` of one that only the
    twin does, at any site in at least half of the frames."""


class Metric(msgspec.Struct, frozen=True, array_like=True):
    """A metric that a fault moves."""

    name: str
    effect: float | None
    """Median size over the runs in which it was measured, in units; None for one that appears or
    vanishes."""
    direction: str
    """↑ or ↓ where nine of ten runs in which it moved agree, else ↕; ``new`` or ``gone``."""
    share: float
    """Of all runs: in which it moved beyond its clean spread."""


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """Of so many runs, so many show the fault."""

    runs: int
    seen: int


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of a root cause, or of one operator (``operator``, else None)."""

    cause: str
    operator: str | None = None
    runs: int
    fired: int
    """Runs in which a contract fired."""
    moved: int
    """Runs in which a metric moved further than in 95 % of the healthy changes, appeared or
    vanished."""
    seen: int
    """Either of the two."""
    metrics: tuple[Metric, ...]
    families: dict[str, Seen]
    severities: dict[str, Seen] = {}


class Observability(msgspec.Struct, frozen=True, kw_only=True):
    """A corpus's faults and what shows them. ``threshold``: in clean spreads."""

    corpus: str
    runs: int
    healthy: int
    healthy_fired: int
    healthy_seen: int
    """Healthy changes that these rules would take for a fault."""
    threshold: float
    causes: tuple[Group, ...]
    operators: tuple[Group, ...]


def step_spread(values: Floats) -> Floats:
    """(F, C) -> (C,): standard deviation of a frame's values, from the differences of neighbours; 0
    where too little was measured. By medians: 1.4826 makes a median deviation a standard one of the
    normal distribution, the difference of two varies sqrt 2 times as much as each."""
    if len(values) < 2:
        return np.zeros(values.shape[1], dtype=np.float32)
    steps = np.abs(np.diff(values, axis=0))
    return np.nan_to_num(1.4826 / np.sqrt(2) * nan_median(steps.T), nan=0.0).astype(np.float32)


def _shift(difference: Floats) -> Floats:
    """(F, C) -> (C,): median of the earlier or of the later half, whichever is larger: a fault may
    fade or grow. NaN where nothing was measured in both runs."""
    half = (len(difference) + 1) // 2
    early, late = nan_median(difference[:half].T), nan_median(difference[-half:].T)
    return np.where(np.isnan(late) | (np.abs(early) > np.abs(late)), early, late)


def observe(label: Label, twin: Recorded, branch: Recorded, start: int) -> Observed:
    """Compares a branch with its clean twin from the step ``start`` on."""
    place = {key: number for number, key in enumerate(twin.keys)}
    shared = [number for number, key in enumerate(branch.keys) if key in place]
    columns = np.array([place[branch.keys[number]] for number in shared], dtype=np.int64)
    steps, ours, theirs = np.intersect1d(twin.steps, branch.steps, return_indices=True)
    ours, theirs = ours[steps >= start], theirs[steps >= start]
    effects: dict[str, float] = {}
    presence: set[str] = set()
    if len(ours):
        other, clean = branch.values[theirs][:, shared], twin.values[ours][:, columns]
        difference = other - clean
        unit = np.maximum(twin.floor[columns], step_spread(twin.values[:, columns]))
        sizes = np.clip(_shift(difference) / unit, -MOST, MOST)
        for at in np.flatnonzero(np.isfinite(sizes)):
            name, size = branch.names[shared[at]], float(sizes[at])
            if abs(size) >= abs(effects.get(name, 0.0)):
                effects[name] = round(size, 2)
        more = np.isfinite(other).mean(axis=0) - np.isfinite(clean).mean(axis=0)
        for at in np.flatnonzero(np.abs(more) >= 0.5):
            presence.add(f"{branch.names[shared[at]]} {'new' if more[at] > 0 else 'gone'}")
    name_of = dict(zip(branch.keys, branch.names, strict=True))
    fired = {
        name_of[key]
        for at, before in zip(theirs, ours, strict=True)
        for key in branch.fired[at] - twin.fired[before]
    }
    return Observed(
        label=label,
        frames=len(ours),
        fired=tuple(sorted(fired)),
        effects=effects,
        presence=tuple(sorted(presence)),
    )


class _Scale:
    """What healthy changes move, and so from where on a move is none of theirs."""

    def __init__(self, healthy: Sequence[Observed]) -> None:
        sizes: dict[str, list[float]] = {}
        for run in healthy:
            for name, size in run.effects.items():
                sizes.setdefault(name, []).append(abs(size))
        self._spread = {
            name: max(1.0, float(np.quantile(found, CLEAN_SHARE))) for name, found in sizes.items()
        }
        tops = [self.top(run) for run in healthy]
        self.threshold = max(1.0, float(np.quantile(tops, CLEAN_SHARE))) if tops else 1.0
        self._usual = self._usual_presence(healthy)

    @staticmethod
    def _usual_presence(healthy: Sequence[Observed]) -> frozenset[str]:
        """What appears and vanishes in healthy changes too, save what is so rare that all of it
        together happens in one of twenty."""
        counts = Counter(name for run in healthy for name in run.presence)
        usual = frozenset(counts)
        for rarest in sorted(set(counts.values())):
            kept = frozenset(name for name, count in counts.items() if count > rarest)
            odd = sum(not kept.issuperset(run.presence) for run in healthy)
            if odd > (1 - CLEAN_SHARE) * len(healthy):
                break
            usual = kept
        return usual

    def spreads(self, name: str, effect: float) -> float:
        """An effect's size in clean spreads of its metric."""
        return abs(effect) / self._spread.get(name, 1.0)

    def top(self, run: Observed) -> float:
        """The largest of a run, in clean spreads."""
        return max((self.spreads(name, size) for name, size in run.effects.items()), default=0.0)

    def odd(self, run: Observed) -> set[str]:
        """What appears or vanishes as it does not in healthy changes."""
        return set(run.presence) - self._usual

    def moved(self, run: Observed) -> bool:
        return self.top(run) > self.threshold or bool(self.odd(run))

    def seen(self, run: Observed) -> bool:
        return bool(run.fired) or self.moved(run)


def _metrics(runs: Sequence[Observed], scale: _Scale) -> tuple[Metric, ...]:
    """The metrics that move in most of the runs, the furthest (in clean spreads) first, then those
    that appear or vanish."""
    found = []
    for name in sorted({name for run in runs for name in run.effects}):
        sizes = [run.effects[name] for run in runs if name in run.effects]
        spreads = [scale.spreads(name, size) for size in sizes]
        share = sum(size > 1 for size in spreads) / len(runs)
        if share > 0.5:
            effect = round(float(np.median(np.abs(sizes))), 1)
            moved = [size for size, of in zip(sizes, spreads, strict=True) if of > 1]
            metric = Metric(name, effect, _direction(moved), round(share, 2))
            found.append((-float(np.median(spreads)), metric))
    told = [metric for _, metric in sorted(found, key=lambda f: (f[0], f[1].name))]
    presence = Counter(name for run in runs for name in scale.odd(run))
    for name, count in sorted(presence.items(), key=lambda item: (-item[1], item[0])):
        if 2 * count > len(runs):
            own, _, direction = name.rpartition(" ")
            told.append(Metric(own, None, direction, round(count / len(runs), 2)))
    return tuple(told[:METRICS_TOLD])


def _direction(sizes: Sequence[float]) -> str:
    rising = sum(size > 0 for size in sizes) / len(sizes)
    return "↑" if rising >= 0.9 else "↓" if rising <= 0.1 else "↕"


def _seen_by(named: Iterable[tuple[str, bool]]) -> dict[str, Seen]:
    runs: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for name, shown in named:
        runs[name] += 1
        seen[name] += shown
    return {name: Seen(runs[name], seen[name]) for name in sorted(runs)}


def _plain(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _group(cause: str, operator: str | None, runs: Sequence[Observed], scale: _Scale) -> Group:
    shown = [scale.seen(run) for run in runs]
    labels = [run.label for run in runs]
    values = [_plain(label.value) for label in labels if label.value is not None]
    return Group(
        cause=cause,
        operator=operator,
        runs=len(runs),
        fired=sum(bool(run.fired) for run in runs),
        moved=sum(scale.moved(run) for run in runs),
        seen=sum(shown),
        metrics=_metrics(runs, scale),
        families=_seen_by((label.family, s) for label, s in zip(labels, shown, strict=True)),
        severities=(
            _seen_by(zip(values, shown, strict=True))
            if operator is not None and len(values) == len(runs)
            else {}
        ),
    )


def summarise(corpus: str, observed: Iterable[Observed]) -> Observability:
    """What shows the root causes and the operators, by name. ``corpus``: its checksum.

    Runs with no frame after the fault are left out.
    """
    runs = [run for run in observed if run.frames]
    healthy = [run for run in runs if run.label.cause is None]
    scale = _Scale(healthy)
    causes: dict[str, list[Observed]] = {}
    operators: dict[tuple[str, str], list[Observed]] = {}
    for run in runs:
        if run.label.cause is not None:
            causes.setdefault(run.label.cause, []).append(run)
            operators.setdefault((run.label.cause, run.label.operator or ""), []).append(run)
    return Observability(
        corpus=corpus,
        runs=len(runs) - len(healthy),
        healthy=len(healthy),
        healthy_fired=sum(bool(run.fired) for run in healthy),
        healthy_seen=sum(scale.seen(run) for run in healthy),
        threshold=round(scale.threshold, 2),
        causes=tuple(_group(cause, None, causes[cause], scale) for cause in sorted(causes)),
        operators=tuple(
            _group(cause, operator, found, scale)
            for (cause, operator), found in sorted(operators.items())
        ),
    )
