"""A trace of 10^6 steps in 10^5 frames of 1,200 values: opening it, scrubbing, memory."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from speed_figure import Figure, median
from speed_sent import Sent
from speed_terminal import SIZE, Terminal

REPEATS = 3


def measure(trace: Path) -> Iterator[Figure]:
    """To the full overview without and with what was kept of an earlier time."""
    cache = Path(os.environ["XDG_CACHE_HOME"])
    shutil.rmtree(cache, ignore_errors=True)
    asyncio.run(rested())  # imports, so that memory and time are the trace's alone
    before = resident()
    _, _, after, last = asyncio.run(opened(trace))  # brings the file into the system's memory
    first, second, scrubbed = [], [], []
    for _ in range(REPEATS):
        shutil.rmtree(cache, ignore_errors=True)
        first.append(asyncio.run(opened(trace))[0])
        took, per_second, _, _ = asyncio.run(opened(trace))
        second.append(took)
        scrubbed.append(per_second)
    yield median("long trace to its full overview, first time", first, "s", 2)
    yield median("long trace to its full overview, second time", second, "s", 0.5)
    commands: list[list[float]] = [[], []]
    for _ in range(REPEATS):
        shutil.rmtree(cache, ignore_errors=True)
        for found in commands:
            found.append(from_command(trace, last))
    yield median("the same with the start of the program, first time", commands[0], "s")
    yield median("the same with the start of the program, second time", commands[1], "s")
    yield median("scrubbing through it", scrubbed, "frames/s", 10, "at least")
    yield Figure("memory above start with it open", after - before, "MB", 300)


def from_command(trace: Path, last: int) -> float:
    """Seconds from the command until the header stands at the last step."""
    words = ["replay", str(trace), "--paused", "--at", str(10**9), "--theme", "monitor-dark"]
    began = time.perf_counter()
    with Terminal(words) as terminal:
        terminal.until(f"{last} of {last}".encode())
        took = time.perf_counter() - began
        terminal.watch(2)  # its overview is kept
        return took


async def rested() -> None:
    """The monitor over a run of usual length."""
    from screen_driver import running

    from monitor.sources.fake import FakeSource, Script

    async with running(FakeSource(Script()), size=SIZE):
        pass


async def opened(trace: Path) -> tuple[float, float, float, int]:
    """Seconds to the full overview, pictures a second while scrubbing, megabytes held with it
    open, the trace's last step."""
    from scripted_engine import ScriptedEngine

    from monitor.app import MonitorApp
    from monitor.sources.replay import ReplaySource

    began = time.perf_counter()
    source = ReplaySource(trace, playing=False)
    source.jump(sys.maxsize)
    app = MonitorApp(source, engine_factory=ScriptedEngine, find_runs=tuple)
    async with app.run_test(size=SIZE):
        Sent(app)
        while True:
            await asyncio.sleep(0.01)
            frames = len(source._records.frames)
            if source._complete and app.model.frames == frames and source.position().at_end:
                break
        await drawn(app, app.tick)
        took = time.perf_counter() - began
        grown = resident()
        while source._overview is None:  # it is kept as soon as the screen has time
            await asyncio.sleep(0.01)
            app.tick()
        await app.workers.wait_for_complete()
        steps = app.model.sampled_steps()
        began, count = time.perf_counter(), 40
        for number in range(count):
            step = int(steps[-2 - number * (len(steps) - 3) // count])
            await drawn(app, lambda step=step: app.seek(step))
        scrubbed = count / (time.perf_counter() - began)
    return took, scrubbed, grown, int(steps[-1])


async def drawn(app, act) -> None:
    """Do something, and wait for the picture of it."""
    done = asyncio.Event()
    act()
    app.call_after_refresh(done.set)
    await done.wait()


def resident() -> float:
    """Megabytes of memory that this process holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
