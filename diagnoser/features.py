"""Rolling features: frames in, a feature vector per node out. The same code live and in training.

Time is counted in steps, whatever the sampling interval. What was never measured is absent
(``present`` 0, the rest 0); change features are 0 until there is a past to compare with.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from diagnoser import schema
from diagnoser.columns import Columns

if TYPE_CHECKING:
    import numpy.typing as npt

    from probe.schema import Frame, Header

    Floats = npt.NDArray[np.float32]

WINDOW = 5
"""Frames in the window; its level is the median of the last three."""

PAST = 32
"""Frames kept of the past before the window; when full, every second is dropped."""

LIMIT = 6.0
"""Robust z-scores pass through asinh and are cut here (asinh 6 is a z of about 200)."""


@dataclass(frozen=True)
class NodeFeatures:
    """Features after a frame. ``nodes``: kind -> (sites of the kind, features), float32."""

    step: int
    frames: int
    measured: float
    """Share of the columns that hold a value."""
    nodes: dict[str, Floats]


@dataclass(frozen=True)
class ColumnState:
    """What is known of every column (C,): for evidence. NaN where there is nothing to say."""

    raw: Floats
    """Latest value, as measured."""
    level: Floats
    """Median of the last frames, transformed."""
    baseline: Floats
    """Median of the past, transformed."""
    change: Floats
    """Level against the baseline in robust standard units."""
    jump: Floats
    """Largest shift so far in units of the usual variation, signed."""
    jump_step: npt.NDArray[np.int64]
    """Step after which that shift came."""
    peer: Floats
    """Level against the same metric in the other layers, in robust standard units."""


def nan_median(values: Floats) -> Floats:
    """Median over the last axis without NaN; NaN where nothing is left. Faster than numpy's."""
    ordered = np.sort(values, axis=-1)
    count = np.isfinite(ordered).sum(axis=-1)
    low = np.maximum((count - 1) // 2, 0)[..., None]
    high = np.maximum(np.minimum(count // 2, values.shape[-1] - 1), 0)[..., None]
    middle = (np.take_along_axis(ordered, low, -1) + np.take_along_axis(ordered, high, -1)) / 2
    return np.where(count > 0, middle[..., 0], np.float32(np.nan))


def _bounded(z: Floats) -> Floats:
    """asinh, cut, NaN to 0: nothing to compare with says nothing."""
    return np.nan_to_num(np.clip(np.arcsinh(z), -LIMIT, LIMIT), nan=0.0)


class RollingFeatures:
    """Keeps the recent window, a thinned past and the largest shift of every column."""

    def __init__(self, header: Header) -> None:
        self.columns = Columns(header)
        self.frames = 0
        self.last_step = -1
        self._start(len(self.columns))

    def _start(self, count: int) -> None:
        self._raw: deque[Floats] = deque(maxlen=WINDOW)
        self._excess: deque[Floats] = deque(maxlen=WINDOW)
        self._window: deque[Floats] = deque(maxlen=WINDOW + 1)
        self._steps: deque[int] = deque(maxlen=WINDOW + 1)
        self._last_seen = np.full(count, np.nan, dtype=np.float32)
        self._past = np.full((count, PAST), np.nan, dtype=np.float32)
        self._past_count = 0
        self._stride = 1
        self._skipped = 0
        self._variation = np.zeros(count, dtype=np.float32)
        self._variation_count = np.zeros(count, dtype=np.float32)
        self._jump = np.zeros(count, dtype=np.float32)
        self._jump_step = np.full(count, -1, dtype=np.int64)
        self._baseline: tuple[Floats, Floats] | None = None

    def rebind(self, header: Header) -> None:
        """Go on under a later header of the same run: columns it shares keep their history."""
        columns = Columns(header)
        place = {key: number for number, key in enumerate(self.columns.keys)}
        source = np.array([place.get(key, -1) for key in columns.keys], dtype=np.int64)
        known = source >= 0

        def moved(values: npt.NDArray, fill: float) -> npt.NDArray:
            result = np.full((len(source), *values.shape[1:]), fill, dtype=values.dtype)
            result[known] = values[source[known]]
            return result

        self._raw = deque((moved(v, np.nan) for v in self._raw), maxlen=WINDOW)
        self._excess = deque((moved(v, np.nan) for v in self._excess), maxlen=WINDOW)
        self._window = deque((moved(v, np.nan) for v in self._window), maxlen=WINDOW + 1)
        self._last_seen = moved(self._last_seen, np.nan)
        self._past = moved(self._past, np.nan)
        self._variation = moved(self._variation, 0)
        self._variation_count = moved(self._variation_count, 0)
        self._jump = moved(self._jump, 0)
        self._jump_step = moved(self._jump_step, -1)
        self._baseline = None
        self.columns = columns

    def update(self, frame: Frame) -> NodeFeatures:
        """Take a frame in and return the features after it. Raises ``ValueError`` on its size."""
        self.push(frame)
        return self.features()

    def push(self, frame: Frame) -> None:
        """Take a frame in without computing features."""
        raw = self.columns.values(frame)
        carried = self.columns.carried
        if carried.any():
            measured = ~np.isnan(raw)
            self._last_seen = np.where(measured, raw, self._last_seen)
            raw = np.where(carried, self._last_seen, raw)
        values = self.columns.transform(raw)
        if len(self._window) >= WINDOW:
            self._age(self._window[-WINDOW])
        self._raw.append(np.array(raw, dtype=np.float32))
        self._excess.append(self.columns.excess(raw))
        self._window.append(values)
        self._steps.append(frame.step)
        self.frames += 1
        self.last_step = frame.step
        self._watch_jump()

    def _age(self, leaving: Floats) -> None:
        """Put the frame that leaves the window into the past."""
        self._skipped += 1
        if self._skipped < self._stride:
            return
        self._skipped = 0
        if self._past_count == PAST:
            self._past[:, : PAST // 2] = self._past[:, ::2]
            self._past[:, PAST // 2 :] = np.nan
            self._past_count = PAST // 2
            self._stride *= 2
        self._past[:, self._past_count] = leaving
        self._past_count += 1
        self._baseline = None

    def _watch_jump(self) -> None:
        """Median of the last three frames against that of the three before, per usual variation."""
        if len(self._window) < WINDOW + 1:
            return
        recent = np.stack(list(self._window), axis=-1)
        before, after = nan_median(recent[:, :3]), nan_median(recent[:, 3:])
        usual = self._variation / np.maximum(self._variation_count, 1)
        with np.errstate(invalid="ignore"):
            shift = (after - before) / (2 * usual + self.columns.floor)
            larger = (np.abs(shift) > np.abs(self._jump)) & (self._variation_count >= 2)
            step_change = np.abs(recent[:, 1] - recent[:, 0])
        self._jump = np.where(larger, shift, self._jump)
        self._jump_step = np.where(larger, self._steps[3], self._jump_step)
        seen = np.isfinite(step_change)
        self._variation += np.where(seen, step_change, 0)
        self._variation_count += seen

    def _past_baseline(self) -> tuple[Floats, Floats]:
        """Median and scaled median deviation of the past, (C,) each; NaN before there is any."""
        if self._baseline is None:
            if self._past_count == 0:
                nothing = np.full(len(self.columns), np.nan, dtype=np.float32)
                return nothing, nothing
            kept = self._past[:, : self._past_count]
            middle = nan_median(kept)
            self._baseline = middle, 1.4826 * nan_median(np.abs(kept - middle[:, None]))
        return self._baseline

    def _peer_difference(self, level: Floats) -> Floats:
        """Robust z of each column among its peers over the layers; NaN without peers."""
        result = np.full(len(level), np.nan, dtype=np.float32)
        table = self.columns.peers
        if table.size:
            here = np.where(table >= 0, level[table], np.float32(np.nan))
            middle = nan_median(here)[:, None]
            deviation = 1.4826 * nan_median(np.abs(here - middle))[:, None]
            floor = 2 * self.columns.floor[table[:, 0]][:, None]
            z = (here - middle) / (deviation + floor)
            result[table[table >= 0]] = z[table >= 0]
        return result

    def state(self) -> ColumnState:
        """What is known of every column now. Needs at least one frame."""
        level = nan_median(np.stack(list(self._window)[-3:], axis=-1))
        baseline, deviation = self._past_baseline()
        return ColumnState(
            raw=self._raw[-1],
            level=level,
            baseline=baseline,
            change=(level - baseline) / (deviation + self.columns.floor),
            jump=self._jump,
            jump_step=self._jump_step,
            peer=self._peer_difference(level),
        )

    def features(self, state: ColumnState | None = None) -> NodeFeatures:
        """The features after the last frame. Needs at least one frame."""
        state = self.state() if state is None else state
        excess = np.stack(list(self._excess), axis=-1)
        window = np.stack(list(self._window)[-WINDOW:], axis=-1)
        middle = nan_median(window)
        spread = 1.4826 * nan_median(np.abs(window - middle[:, None]))
        present = np.isfinite(state.level)
        level = np.nan_to_num(nan_median(excess[:, -3:]), nan=0.0)
        # How large a residual's rounding is would tell models that have it from those without.
        value = np.where(self.columns.residual, level, np.clip(state.level, -LIMIT, LIMIT))
        by_statistic = {
            "present": present.astype(np.float32),
            "level": level,
            "peak": np.nan_to_num(np.fmax.reduce(excess, axis=-1), nan=0.0),
            "value": np.nan_to_num(value, nan=0.0),
            "spread": _bounded(spread / self.columns.floor),
            "trend": _bounded(self._trend(window)),
            "change": _bounded(state.change),
            "jump": _bounded(state.jump),
            "peer": _bounded(state.peer),
        }
        return NodeFeatures(
            step=self.last_step,
            frames=self.frames,
            measured=float(present.mean()) if present.size else 0.0,
            nodes=self._by_node(by_statistic),
        )

    def _trend(self, window: Floats) -> Floats:
        """Shift over the window per hundred steps, in floors; NaN with fewer than four frames."""
        steps = list(self._steps)[-WINDOW:]
        if len(steps) < 4:
            return np.full(len(window), np.nan, dtype=np.float32)
        half = len(steps) // 2
        span = max(float(np.mean(steps[-half:]) - np.mean(steps[:half])), 1.0)
        shift = nan_median(window[:, -half:]) - nan_median(window[:, :half])
        return shift / self.columns.floor * (100.0 / span)

    def _by_node(self, by_statistic: dict[str, Floats]) -> dict[str, Floats]:
        values = np.zeros((len(by_statistic), len(self.columns) + 1), dtype=np.float32)
        values[:, :-1] = list(by_statistic.values())  # the last is that of no column
        nodes: dict[str, Floats] = {}
        for kind, table in self.columns.targets.items():
            metrics, statistics = _places(kind, tuple(by_statistic))
            nodes[kind] = values[statistics, table[:, metrics]]
        return nodes


@cache
def _places(
    kind: str, names: tuple[str, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of each feature of a kind, (features,): the number of its metric among the kind's, and of its
    statistic among ``names``."""
    found = [
        (number, names.index(statistic))
        for number, metric in enumerate(schema.metrics_of(kind))
        for statistic in schema.statistics_of(metric)
    ]
    metrics, statistics = np.array(found, dtype=np.int64).reshape(-1, 2).T
    return metrics, statistics
