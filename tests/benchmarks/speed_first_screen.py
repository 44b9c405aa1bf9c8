"""From the command to the first full picture on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from speed_figure import Figure, median
from speed_terminal import Terminal

REPEATS = 9


def measure(trace: Path) -> Iterator[Figure]:
    """A recorded run of usual length; the first start, which compiles, is left out."""
    found = [started(trace) for _ in range(REPEATS + 1)]
    yield median(f"first screen, median of {REPEATS}", found[1:], "s", 0.7)


def started(trace: Path) -> float:
    """Seconds until the footer, which is drawn last, is there."""
    began = time.perf_counter()
    with Terminal(["replay", str(trace), "--paused", "--theme", "monitor-dark"]) as terminal:
        terminal.until(b"Quit")
        return time.perf_counter() - began
