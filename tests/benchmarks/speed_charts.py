"""Six charts of 500 points at 204x60: processor time of a refresh, beside other widgets'."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from speed_figure import Figure, median
from speed_sent import Sent
from speed_terminal import SIZE
from textual.pilot import Pilot

REPEATS = 5
_WHAT = "six charts of 500 points, 204×60"


def measure(_: Path) -> Iterator[Figure]:
    """Ours, then textual-plot and textual-plotext where they are installed."""
    kinds = (("own", own, 15.0), ("textual-plot", textual_plot, None),
             ("textual-plotext", textual_plotext, None))  # fmt: skip
    for name, drawn, limit in kinds:
        try:
            found = [asyncio.run(drawn()) for _ in range(REPEATS)]
        except ImportError:
            yield Figure(f"{_WHAT}: {name}", math.nan, note="not installed")
            continue
        times = [took for took, _ in found]
        yield median(f"{_WHAT}: {name}", times, "ms CPU", limit)
        yield median(f"{_WHAT}: {name}, sent", [kilobytes for _, kilobytes in found], "KB")


def series(shift: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Steps and values of six random walks."""
    random = np.random.default_rng(0)
    steps = np.arange(500)
    return [(steps, np.roll(random.normal(size=500).cumsum(), shift)) for _ in range(6)]


async def refreshed(
    pilot: Pilot, draw: Callable[[int], None], rounds: int = 30
) -> tuple[float, float]:
    """Of one refresh: milliseconds of processor time, from the new data to the bytes for the
    terminal, and kilobytes; medians."""
    await pilot.pause(0.3)
    sent = Sent(pilot.app)
    times, sizes = [], []
    for number in range(rounds):
        sent.drawn.clear()
        before, began = sent.bytes, time.process_time()
        draw(number)
        await asyncio.wait_for(sent.drawn.wait(), 5)
        await asyncio.sleep(0.03)  # what else follows of it
        times.append(time.process_time() - began)
        sizes.append(sent.bytes - before)
    return statistics.median(times) * 1000, statistics.median(sizes) / 1000


async def own() -> tuple[float, float]:
    """The Metrics view with six charts."""
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

        def draw(number: int) -> None:
            for pane, data in zip(grid.panes, drawn[number % 8], strict=True):
                pane.show(data)

        return await refreshed(pilot, draw)


async def textual_plot() -> tuple[float, float]:
    """Six PlotWidgets."""
    from textual.app import App
    from textual.containers import Grid
    from textual_plot import PlotWidget

    class Six(App[None]):
        CSS = "Grid { grid-size: 3 2; }"

        def compose(self):
            with Grid():
                for _ in range(6):
                    yield PlotWidget()

    drawn = [series(number) for number in range(8)]
    async with Six().run_test(size=SIZE) as pilot:
        plots = list(pilot.app.query(PlotWidget))

        def draw(number: int) -> None:
            for plot, (steps, values) in zip(plots, drawn[number % 8], strict=True):
                plot.clear()
                plot.plot(steps, values)

        return await refreshed(pilot, draw, 15)


async def textual_plotext() -> tuple[float, float]:
    """Six PlotextPlots."""
    from textual.app import App
    from textual.containers import Grid
    from textual_plotext import PlotextPlot

    class Six(App[None]):
        CSS = "Grid { grid-size: 3 2; }"

        def compose(self):
            with Grid():
                for _ in range(6):
                    yield PlotextPlot()

    drawn = [[(x.tolist(), y.tolist()) for x, y in series(number)] for number in range(8)]
    async with Six().run_test(size=SIZE) as pilot:
        plots = list(pilot.app.query(PlotextPlot))

        def draw(number: int) -> None:
            for plot, (steps, values) in zip(plots, drawn[number % 8], strict=True):
                plot.plt.clear_data()
                plot.plt.plot(steps, values)
                plot.refresh()

        return await refreshed(pilot, draw, 15)
