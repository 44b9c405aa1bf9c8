"""Counts the time the training thread spends inside the probe."""

from __future__ import annotations

from time import perf_counter


class Stopwatch:
    """:meth:`start` and :meth:`stop`, or ``with watch:`` for short, add to ``spent`` (seconds).

    Nested pairs count once. A pair that an exception left open ends with :meth:`take`.
    """

    def __init__(self) -> None:
        self.spent = 0.0
        self._depth = 0
        self._since = 0.0

    def start(self) -> float:
        """Begin to count; returns the time by :func:`time.perf_counter`."""
        now = perf_counter()
        if self._depth == 0:
            self._since = now
        self._depth += 1
        return now

    def stop(self) -> None:
        """Count what passed since :meth:`start`."""
        self._depth -= 1
        if self._depth == 0:
            self.spent += perf_counter() - self._since

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def take(self) -> float:
        """What was counted since the last call, seconds."""
        spent, self.spent, self._depth = self.spent, 0.0, 0
        return spent
