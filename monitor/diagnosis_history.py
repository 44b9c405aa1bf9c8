"""Diagnoses of the past, so that a live run can be looked at as it was. Bounded."""

from __future__ import annotations

from bisect import bisect_right

from diagnoser.diagnosis import Diagnosis


class DiagnosisHistory:
    """At most ``capacity`` diagnoses in order of their steps.

    When all places are taken, every second diagnosis is given up that says what the one before
    said; where nearly all say something new, every second of those.
    """

    def __init__(self, capacity: int = 400) -> None:
        self._capacity = capacity
        self.clear()

    def clear(self) -> None:
        self._steps: list[int] = []
        self._held: list[Diagnosis] = []

    def add(self, diagnosis: Diagnosis) -> None:
        """Take in the diagnosis after a frame."""
        if self._steps and diagnosis.last_step <= self._steps[-1]:
            return
        self._steps.append(diagnosis.last_step)
        self._held.append(diagnosis)
        if len(self._held) >= self._capacity:
            self._thin()

    def at(self, step: int) -> Diagnosis | None:
        """The newest one that is not after a step; None before the first."""
        at = bisect_right(self._steps, step) - 1
        return self._held[at] if at >= 0 else None

    def _thin(self) -> None:
        said = [(d.verdict, d.category, d.root_cause) for d in self._held]
        kept = [i for i in range(len(said)) if i % 2 == 0 or said[i] != said[i - 1]]
        if len(kept) > self._capacity * 3 // 4:
            kept = list(range(0, len(said), 2))
        self._steps = [self._steps[i] for i in kept]
        self._held = [self._held[i] for i in kept]
