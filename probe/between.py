"""What becomes known between two samples, and is told with the next."""

from __future__ import annotations

import statistics

from probe.measure.sampled import Values


class Between:
    """Times of the steps, and results of validations."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._validation: Values = {}

    def step_took(self, seconds: float) -> None:
        """A step, without the probe's share of it."""
        self._times.append(max(seconds, 0.0))

    def validated(self, found: dict[str, float]) -> None:
        """Results by name; the latest of each name counts."""
        self._validation.update(found)

    def take(self) -> dict[str, Values]:
        """All of it by site: the median of the times. Begins anew."""
        found: dict[str, Values] = {}
        if self._times:
            found["training"] = {"step_time": statistics.median(self._times)}
            self._times = []
        if self._validation:
            found["validation"], self._validation = self._validation, {}
        return found
