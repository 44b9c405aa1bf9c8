"""A run that ended, nothing pressed: how much of a core the monitor takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from speed_figure import Figure, median
from speed_terminal import SIZE

REPEATS = 3


def measure(_: Path) -> Iterator[Figure]:
    """Processor time of this process while the screen rests."""
    found = [asyncio.run(resting()) * 100 for _ in range(REPEATS)]
    yield median("idle, share of a core", found, "%", 2)


async def resting(seconds: float = 5.0) -> float:
    """Processor time over clock time."""
    from screen_driver import running

    from monitor.sources.fake import FakeSource, Script

    async with running(FakeSource(Script(), last="ended"), size=SIZE):
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        return (time.process_time() - used) / (time.perf_counter() - began)
