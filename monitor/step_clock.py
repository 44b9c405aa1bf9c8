"""When each step was: from steps to wall-clock time and back. Pure and bounded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class StepClock:
    """Steps and the times at which they were seen, at most ``capacity`` (even) of them.

    When all places are taken every second one is given up: between two known steps time is taken
    to pass evenly. Times are milliseconds since the first step; a clock that was set back does not
    take the axis back.
    """

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._steps: list[int] = []
        self._times: list[float] = []
        self._every = 1
        self._skipped = 0

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, time: float) -> None:
        """A step was at ``time`` (Unix, seconds). Steps that are not later than the last are
        known already."""
        if not np.isfinite(time) or (self._steps and step <= self._steps[-1]):
            return
        self._skipped += 1
        if self._skipped < self._every:
            return
        self._skipped = 0
        latest = self._times[-1] if self._times else time
        self._steps.append(step)
        self._times.append(max(time, latest))
        if len(self._steps) >= self._capacity:
            self._steps, self._times = self._steps[::2], self._times[::2]
            self._every *= 2

    @property
    def began(self) -> float:
        """Unix time of the first step; NaN before one."""
        return self._times[0] if self._times else float("nan")

    @property
    def elapsed(self) -> float:
        """Seconds from the first known step to the last; 0 before two of them."""
        return self._times[-1] - self._times[0] if self._times else 0.0

    def milliseconds(self, steps: npt.ArrayLike) -> IntArray:
        """Time of each step since the first; steps beyond the known ones go on at the mean pace."""
        asked = np.asarray(steps, np.float64)
        if len(self._steps) < 2:
            return np.zeros(asked.shape, np.int64)
        known, times = np.array(self._steps, np.float64), np.array(self._times) - self._times[0]
        found = np.interp(asked, known, times)
        pace = times[-1] / max(known[-1] - known[0], 1.0)
        found = np.where(asked > known[-1], times[-1] + (asked - known[-1]) * pace, found)
        return np.round(found * 1000).astype(np.int64)

    def step_at(self, milliseconds: float) -> float:
        """The step that was under way at a time; inverse of :meth:`milliseconds`."""
        if len(self._steps) < 2:
            return float(self._steps[0]) if self._steps else 0.0
        times = np.array(self._times) - self._times[0]
        return float(np.interp(milliseconds / 1000, times, np.array(self._steps, np.float64)))
