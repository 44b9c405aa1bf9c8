"""Keys while a replay plays fast in a terminal behind a link of 300 KB/s."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from speed_figure import Figure
from speed_terminal import Terminal

RATE = 300_000
"""Bytes per second."""
_SHOWN = ((b"5", b"Charts"), (b"4", b"at step"), (b"6", b"Events"), (b"2", b"Verdict over"))
"""Key of a view, and what only that view shows: the title of a pane."""
_ROUNDS = 5


def speed(trace: Path) -> float:
    """Times the recorded speed at which the trace lasts for all that is measured."""
    from probe.schema import Frame
    from probe.trace import load

    times = [record.time for record in load(trace) if isinstance(record, Frame)]
    return (max(times) - min(times)) / 60


def measure(trace: Path) -> Iterator[Figure]:
    """The slowest of all keys counts."""
    words = ["replay", str(trace), "--speed", f"{speed(trace):.0f}", "--theme", "monitor-dark"]
    with Terminal(words, RATE) as terminal:
        terminal.until(b"Quit")
        terminal.watch(3)
        found = []
        for key, title in _SHOWN * _ROUNDS:
            terminal.press(key)
            found.append(terminal.until(title))
            terminal.watch(0.5)
        before = len(terminal.received)
        terminal.watch(3)
        sent = (len(terminal.received) - before) / 3000
        began = time.perf_counter()
        terminal.press(b"q")
        while terminal.process.poll() is None:
            terminal.read(0.02)
        quitting = time.perf_counter() - began
    what = f"300 KB/s link: key to its view, slowest of {len(found)}"
    yield Figure(what, max(found), "s", 0.5, spread=(min(found), max(found)))
    yield Figure("300 KB/s link: sent while a replay plays", sent, "KB/s")
    yield Figure("300 KB/s link: q to the end of the process", quitting, "s")
