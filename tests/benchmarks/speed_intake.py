"""A live run of 24 layers that sends frames at a steady rate, and keys meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from speed_figure import Figure, median
from speed_sent import Sent
from speed_terminal import SIZE

from probe.schema import Control, Frame

OFFERED = 1100
"""Frames a second: more than asked for, so that taking in that many shows."""
REPEATS = 3
_KEYS = ("right_square_bracket", "left_square_bracket", "left", "e")


class Flood:
    """A source that is ahead or behind its rate by a few milliseconds only."""

    title = "flood"

    def __init__(self, frames_per_second: int) -> None:
        from big_trace import big_header

        self._header = big_header()
        values = np.random.default_rng(0).normal(size=len(self._header.columns)).astype("<f4")
        self._values = values.tobytes()
        self._rate = frames_per_second
        self._began: float | None = None
        self.sent = 0

    def read(self, limit=500, timeout=0.25):
        from monitor.sources.source import Batch

        if self._began is None:
            self._began = time.perf_counter()
            return Batch((self._header,), link="live", state="training")
        time.sleep(0.005)
        due = int((time.perf_counter() - self._began) * self._rate)
        numbers = range(self.sent, self.sent + min(due - self.sent, limit))
        found = tuple(Frame(seq=n, step=n, time=n / 1000, values=self._values) for n in numbers)
        self.sent += len(found)
        return Batch(found, link="live", state="training")

    def send(self, control: Control) -> str:
        return ""

    def close(self) -> None:
        pass


def measure(_: Path) -> Iterator[Figure]:
    """Frames taken in, and how soon a key is on the screen meanwhile."""
    asyncio.run(flooded(0.5))  # the first one imports
    behind, taken, late = zip(*(asyncio.run(flooded()) for _ in range(REPEATS)), strict=True)
    what = f"intake of 1,200 values a frame, {OFFERED:,} frames/s offered"
    yield median(what, taken, "frames/s", 1000, "at least")
    yield median("frames not taken in yet at the end", behind, "frames")
    p95 = [float(np.percentile(found, 95)) * 1000 for found in late]
    yield median("key to frame meanwhile, p95", p95, "ms", 50)
    p50 = [float(np.percentile(found, 50)) * 1000 for found in late]
    yield median("key to frame meanwhile, p50", p50, "ms")


async def flooded(seconds: float = 8.0) -> tuple[float, float, list[float]]:
    """Frames that wait at the end, frames a second, and seconds from each key to its picture."""
    from scripted_engine import ScriptedEngine

    from monitor.app import MonitorApp

    source = Flood(OFFERED)
    app = MonitorApp(source, engine_factory=ScriptedEngine, find_runs=tuple)
    latencies = []
    async with app.run_test(size=SIZE) as pilot:
        while not app.model.frames:
            await pilot.pause(0.01)
        Sent(app)
        began, frames = time.perf_counter(), app.model.frames
        drawn = asyncio.Event()
        acted = app.acted

        def acted_and_drawn() -> None:
            acted()
            app.call_after_refresh(drawn.set)

        app.acted = acted_and_drawn
        while time.perf_counter() - began < seconds:
            await asyncio.sleep(0.05)
            drawn.clear()
            pressed = time.perf_counter()
            app.simulate_key(_KEYS[len(latencies) % len(_KEYS)])
            await drawn.wait()
            latencies.append(time.perf_counter() - pressed)
        took = time.perf_counter() - began
        return source.sent - app.model.frames, (app.model.frames - frames) / took, latencies
