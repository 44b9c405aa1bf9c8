"""A chart over wall-clock time: the same curves, their steps replaced by milliseconds."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from monitor.charts.line_chart import ChartData
from monitor.charts.raster import cut
from monitor.envelope import Curve
from monitor.run_model import StepMark


class Clock(Protocol):
    """When each step was."""

    def __len__(self) -> int: ...

    def milliseconds(self, steps: npt.ArrayLike) -> npt.NDArray[np.int64]: ...

    def step_at(self, milliseconds: float) -> float: ...


def over_time(data: ChartData, clock: Clock) -> ChartData:
    """The chart with a horizontal axis in milliseconds since the first step; as it is where no two
    times are known. A stretch in which nothing was trained is as wide as it was long."""
    if len(clock) < 2:
        return data

    def moved(curve: Curve) -> Curve:
        seen = cut(curve, data.span)
        return replace(
            seen, first=clock.milliseconds(seen.first), last=clock.milliseconds(seen.last)
        )

    def at(step: int) -> int:
        return int(clock.milliseconds([step])[0])

    first, last = at(data.span[0]), at(data.span[1])
    return replace(
        data,
        curves=tuple(moved(curve) for curve in data.curves),
        raw=tuple(moved(curve) for curve in data.raw),
        span=(first, max(last, first + 1)),
        marks=tuple(
            StepMark(at(mark.step), mark.kind)
            for mark in data.marks
            if data.span[0] <= mark.step <= data.span[1]
        ),
        cursor=None if data.cursor is None else at(data.cursor),
        step_of=clock.step_at,
    )
