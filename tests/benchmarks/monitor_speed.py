"""How fast the monitor is: one figure a line, as a table.

    python tests/benchmarks/monitor_speed.py [--only NAME ...] [--trace BIG] [--frames 100000]

The long trace is made first (about 500 MB, in a temporary directory) unless one of
tests/benchmarks/big_trace.py is named. textual-plot and textual-plotext are measured beside our
charts where they are installed. Everything runs in this process but the first screen and the slow
terminal. Close other programs first: the figures are wall-clock times.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import pty
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from struct import pack

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "monitor"), str(Path(__file__).parent)]

SIZE = (204, 60)
SLOW_LINK = 300_000
"""Bytes per second."""


@dataclass(frozen=True)
class Figure:
    """One line of the table; ``limit`` is what was asked for, empty where nothing was."""

    what: str
    value: float
    unit: str
    limit: str = ""

    def __str__(self) -> str:
        return f"| {self.what} | {self.value:.3g} {self.unit} | {self.limit} |"


def first_screen(trace: Path) -> Iterator[Figure]:
    """From the command to the first full picture on a terminal."""
    found = []
    for _ in range(3):
        with Terminal(["replay", str(trace), "--paused", "--theme", "monitor-dark"]) as terminal:
            began = time.perf_counter()
            terminal.until(b"Quit")
            found.append(time.perf_counter() - began)
    yield Figure("first screen, median of 3", statistics.median(found), "s", "<= 0.7 s")


class Terminal:
    """The monitor on a pseudo-terminal, read at most at a given rate."""

    def __init__(self, words: list[str], rate: float = float("inf")) -> None:
        self._main, side = pty.openpty()
        ioctl(side, termios.TIOCSWINSZ, pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "monitor.cli", *words],
            stdin=side,
            stdout=side,
            stderr=side,
            env=environment | {"DEFAULTPP_SETTINGS": ""},
            start_new_session=True,
        )
        os.close(side)
        self._rate = rate
        self.received = bytearray()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._main)

    def read(self, timeout: float) -> bytes:
        """What came, never faster than the rate."""
        if not select.select([self._main], [], [], timeout)[0]:
            return b""
        try:
            data = os.read(self._main, 16384)
        except OSError:  # the other side is gone
            return b""
        if self._rate < float("inf"):
            time.sleep(len(data) / self._rate)
        self.received += data
        return data

    def until(self, wanted: bytes, timeout: float = 60.0) -> float:
        """Seconds until these bytes came; raises TimeoutError."""
        began, start = time.perf_counter(), len(self.received)
        while time.perf_counter() - began < timeout:
            self.read(0.05)
            if wanted in self.received[max(0, start - len(wanted)) :]:
                return time.perf_counter() - began
        raise TimeoutError(f"{wanted!r} never came")

    def press(self, key: bytes) -> None:
        os.write(self._main, key)


def slow_link(trace: Path) -> Iterator[Figure]:
    """Keys while a replay plays fast over a link of 300 KB/s."""
    words = ["replay", str(trace), "--speed", "100000", "--theme", "monitor-dark"]
    with Terminal(words, SLOW_LINK) as terminal:
        terminal.until(b"Quit")
        end = time.perf_counter() + 3
        while time.perf_counter() < end:
            terminal.read(0.05)
        found = []
        # What only that view shows: the titles of its panes.
        shown = ((b"5", b"Charts"), (b"4", b"at step"), (b"6", b"Events"), (b"2", b"Verdict over"))
        for key, title in shown * 3:
            terminal.press(key)
            found.append(terminal.until(title))
            end = time.perf_counter() + 0.5
            while time.perf_counter() < end:
                terminal.read(0.05)
        began = time.perf_counter()
        terminal.press(b"q")
        while terminal._process.poll() is None:
            terminal.read(0.02)
        quitting = time.perf_counter() - began
    yield Figure("300 KB/s link: key to its view, worst of 12", max(found), "s", "<= 0.5 s")
    yield Figure("300 KB/s link: q to the end of the process", quitting, "s")


def charts(_: Path) -> Iterator[Figure]:
    """Six charts of 500 points at 204x60: processor time of a refresh, beside other widgets."""
    yield Figure("six charts of 500 points, 204x60: own", asyncio.run(own_charts()), "ms CPU",
                 "<= 15 ms")  # fmt: skip
    for name, measure in (("textual-plot", textual_plot), ("textual-plotext", textual_plotext)):
        try:
            value = asyncio.run(measure())
        except ImportError:
            print(f"{name} is not installed: left out", file=sys.stderr)
            continue
        yield Figure(f"six charts of 500 points, 204x60: {name}", value, "ms CPU")


def series(shift: int) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    steps = np.arange(500)
    return [(steps, np.roll(random.normal(size=500).cumsum(), shift)) for _ in range(6)]


async def refreshed(pilot, draw: Callable[[int], None], rounds: int = 40) -> float:
    """Milliseconds of processor time of one drawing and what follows of it."""
    await pilot.pause()
    found = []
    for number in range(rounds):
        began = time.process_time()
        draw(number)
        await pilot.pause()
        found.append(time.process_time() - began)
    return statistics.median(found) * 1000


async def own_charts() -> float:
    from screen_driver import running, show

    from monitor.charts.line_chart import ChartData
    from monitor.envelope import Envelope
    from monitor.sources.fake import FakeSource, Script
    from monitor.widgets.chart_grid import ChartGrid

    source = FakeSource(Script(steps=100))
    async with running(source, size=SIZE, charts=6) as (app, pilot):
        await show(pilot, "metrics")
        grid = app.view.query_one(ChartGrid)

        def made(number: int) -> list[ChartData]:
            data = []
            for index, (steps, values) in enumerate(series(number)):
                envelope = Envelope(1, 512)
                envelope.extend(steps, values.astype(np.float32)[:, None])
                data.append(ChartData(f"chart {index}", (envelope.curve(0),), (0, 499)))
            return data

        drawn = [made(number) for number in range(8)]
        return await refreshed(pilot, lambda number: grid.show("charts", drawn[number % 8]))


async def textual_plot() -> float:
    from textual.app import App
    from textual.containers import Grid
    from textual_plot import PlotWidget

    class Six(App[None]):
        CSS = "Grid { grid-size: 3 2; }"

        def compose(self):
            with Grid():
                for _ in range(6):
                    yield PlotWidget()

    async with Six().run_test(size=SIZE) as pilot:
        plots = list(pilot.app.query(PlotWidget))

        def draw(number: int) -> None:
            for plot, (steps, values) in zip(plots, series(number), strict=True):
                plot.clear()
                plot.plot(steps, values)

        return await refreshed(pilot, draw, 15)


async def textual_plotext() -> float:
    from textual.app import App
    from textual.containers import Grid
    from textual_plotext import PlotextPlot

    class Six(App[None]):
        CSS = "Grid { grid-size: 3 2; }"

        def compose(self):
            with Grid():
                for _ in range(6):
                    yield PlotextPlot()

    async with Six().run_test(size=SIZE) as pilot:
        plots = list(pilot.app.query(PlotextPlot))

        def draw(number: int) -> None:
            for plot, (steps, values) in zip(plots, series(number), strict=True):
                plot.plt.clear_data()
                plot.plt.plot(steps.tolist(), values.tolist())
                plot.refresh()

        return await refreshed(pilot, draw, 15)


class Flood:
    """A live run of 24 layers that sends frames at a steady rate."""

    title = "flood"

    def __init__(self, frames_per_second: int) -> None:
        from big_trace import big_header

        from probe.schema import Frame

        self._header = big_header()
        values = np.random.default_rng(0).normal(size=len(self._header.columns)).astype("<f4")
        self._frame = lambda seq: Frame(seq=seq, step=seq, time=seq / 1000, values=values.tobytes())
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
        count = min(due - self.sent, limit)
        found = tuple(self._frame(self.sent + n) for n in range(count))
        self.sent += count
        return Batch(found, link="live", state="training")

    def send(self, control):
        return ""

    def close(self):
        pass


def intake(_: Path) -> Iterator[Figure]:
    """1,000 frames a second of 24 layers, and how soon a key is on the screen meanwhile."""
    behind, taken, latencies = asyncio.run(flooded())
    yield Figure("intake of 1,200 values a frame", taken, "frames/s", ">= 1,000 frames/s")
    yield Figure("frames not taken in yet at the end", behind, "frames", "some tenths of a second")
    yield Figure("key to frame meanwhile, p95", np.percentile(latencies, 95) * 1000, "ms",
                 "<= 50 ms")  # fmt: skip


async def flooded(seconds: float = 6.0) -> tuple[float, float, list[float]]:
    from scripted_engine import ScriptedEngine

    from monitor.app import MonitorApp

    source = Flood(1000)
    app = MonitorApp(source, engine_factory=ScriptedEngine, find_runs=tuple)
    latencies = []
    async with app.run_test(size=SIZE) as pilot:
        while app.model.header is None:
            await pilot.pause(0.01)
        began, frames = time.perf_counter(), app.model.frames
        keys = ["right_square_bracket", "left_square_bracket", "left", "e"]
        drawn = asyncio.Event()
        acted = app.acted

        def acted_and_drawn() -> None:
            acted()
            app.call_after_refresh(drawn.set)

        app.acted = acted_and_drawn
        number = 0
        while time.perf_counter() - began < seconds:
            await asyncio.sleep(0.05)
            drawn.clear()
            pressed = time.perf_counter()
            app.simulate_key(keys[number % len(keys)])
            await drawn.wait()
            latencies.append(time.perf_counter() - pressed)
            number += 1
        took = time.perf_counter() - began
        return source.sent - app.model.frames, (app.model.frames - frames) / took, latencies


def long_trace(trace: Path) -> Iterator[Figure]:
    """10^5 frames of 1,200 values: to the full overview, scrubbing, memory."""
    before = resident()
    for number in ("first", "second"):
        opened, scrubbed, grown = asyncio.run(open_long(trace, before))
        limit = "<= 2 s" if number == "first" else "<= 0.5 s"
        yield Figure(f"long trace to its full overview, {number} time", opened, "s", limit)
    yield Figure("scrubbing through it", scrubbed, "frames/s", ">= 10 frames/s")
    yield Figure("memory above start with it open", grown, "MB", "<= 300 MB")


async def open_long(trace: Path, before: float) -> tuple[float, float, float]:
    from scripted_engine import ScriptedEngine

    from monitor.app import MonitorApp
    from monitor.sources.replay import ReplaySource

    began = time.perf_counter()
    source = ReplaySource(trace, playing=False)
    source.jump(sys.maxsize)
    app = MonitorApp(source, engine_factory=ScriptedEngine, find_runs=tuple)
    async with app.run_test(size=SIZE):
        while True:
            await asyncio.sleep(0.01)
            frames = len(source._records.frames)
            if source._complete and app.model.frames == frames and source.position().at_end:
                break
        drawn = asyncio.Event()
        app.tick()
        app.call_after_refresh(drawn.set)
        await drawn.wait()
        opened = time.perf_counter() - began
        grown = resident() - before
        steps = app.model.sampled_steps()
        began, count = time.perf_counter(), 40
        for number in range(count):
            drawn = asyncio.Event()
            app.seek(int(steps[-2 - number * (len(steps) - 3) // count]))
            app.call_after_refresh(drawn.set)
            await drawn.wait()
        scrubbed = count / (time.perf_counter() - began)
    return opened, scrubbed, grown


def resident() -> float:
    """Megabytes of memory that this process holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def idle(_: Path) -> Iterator[Figure]:
    """A run that ended, nothing pressed: share of a core."""
    share = asyncio.run(resting())
    yield Figure("idle, share of a core", share * 100, "%", "<= 2 %")


async def resting(seconds: float = 6.0) -> float:
    from screen_driver import running

    from monitor.sources.fake import FakeSource, Script

    async with running(FakeSource(Script(), last="ended"), size=SIZE):
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        return (time.process_time() - used) / (time.perf_counter() - began)


MEASURES = {
    "first_screen": first_screen,
    "intake": intake,
    "long_trace": long_trace,
    "charts": charts,
    "idle": idle,
    "slow_link": slow_link,
}


def short_trace(directory: Path) -> Path:
    """A recorded run of usual length."""
    from streams import store

    from monitor.sources.fake import Script, records

    return store(directory / "short.trace", list(records(Script(steps=4000, fault_step=2000))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--trace", type=Path, help="a long trace of big_trace.py")
    parser.add_argument("--frames", type=int, default=100_000)
    options = parser.parse_args()
    version = platform.python_version()
    print(f"Python {version}, {os.cpu_count()} processor cores, load {os.getloadavg()[0]:.1f}\n")
    print("| what | measured | asked for |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        for name in options.only:
            trace = short_trace(Path(directory))
            if name == "long_trace":
                trace.unlink()
                trace = options.trace or Path(directory) / "big.trace"
                if not options.trace:
                    from big_trace import write

                    write(trace, options.frames)
            for figure in MEASURES[name](trace):
                print(figure, flush=True)
            if not options.trace or trace != options.trace:
                trace.unlink()


if __name__ == "__main__":
    main()
