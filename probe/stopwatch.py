"""Counts the time the training thread spends inside the probe."""

from __future__ import annotations

from time import perf_counter


class Stopwatch:
    """``with watch:`` adds to ``spent`` (seconds). Nested entries count once."""

    def __init__(self) -> None:
        self.spent = 0.0
        self._depth = 0
        self._since = 0.0

    def __enter__(self) -> None:
        if self._depth == 0:
            self._since = perf_counter()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.spent += perf_counter() - self._since

    def take(self) -> float:
        """What was counted since the last call, seconds."""
        spent, self.spent = self.spent, 0.0
        return spent
