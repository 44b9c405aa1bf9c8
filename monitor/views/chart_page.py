"""Filling a grid of charts with the page that holds the chosen one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from monitor.chart_data import chart_data
from monitor.charts.chart_pane import ChartPane
from monitor.charts.line_chart import ChartData
from monitor.comparison import WATCHED
from monitor.in_pieces import Piece
from monitor.viewing import pattern_error
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.pane_title import set_title

if TYPE_CHECKING:
    from monitor.app import MonitorApp


def pieces(grid: ChartGrid, app: MonitorApp) -> list[Piece]:
    """What draws as many charts as the grid has places, a call for each."""
    grid.fit()
    start, page, keys = _page(grid, app)
    title = _title(start, len(page), len(keys), app.viewing.pattern)
    set_title(grid, title + _runs(app))
    empty = [partial(pane.show, None) for pane in grid.panes[len(page) :]]
    return [*_for_each(grid, app, ChartPane.show), *empty]


def preparations(grid: ChartGrid, app: MonitorApp) -> list[Piece]:
    """What makes ready the charts that :func:`pieces` will draw, a call for each."""
    return _for_each(grid, app, ChartPane.prepare)


def _page(grid: ChartGrid, app: MonitorApp) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """Index of the first chart, those on the page, and all of them."""
    keys = app.viewing.keys(app.model)
    return *app.viewing.page(keys, grid.places), keys


def _for_each(
    grid: ChartGrid, app: MonitorApp, use: Callable[[ChartPane, ChartData], None]
) -> list[Piece]:
    start, page, keys = _page(grid, app)
    chosen = app.viewing.chosen(keys)
    diagnosis = app.shown.diagnosis.diagnosis

    def draw(pane: ChartPane, index: int) -> None:
        selected = start + index == chosen
        use(
            pane,
            chart_data(app.model, app.viewing, diagnosis, page[index], selected, app.comparison),
        )

    return [partial(draw, pane, index) for index, pane in enumerate(grid.panes[: len(page)])]


def _runs(app: MonitorApp) -> str:
    """Which letter is which run, where several are compared."""
    if not app.comparison:
        return ""
    header = app.model.header
    own = f" · {WATCHED} {header.name or header.run}" if header else ""
    return own + "".join(f" · {other.letter} {other.name}" for other in app.comparison.runs)


def companion(pane: ChartPane, app: MonitorApp, key: str | None) -> None:
    """The chart of what is chosen elsewhere in a view; nothing where there is none, or no room."""
    if not pane.display:
        return
    if key is None or key not in app.model.groups:
        pane.show(None)
        return
    diagnosis = app.shown.diagnosis.diagnosis
    pane.show(chart_data(app.model, app.viewing, diagnosis, key, False, app.comparison))


def _title(start: int, shown: int, total: int, pattern: str) -> str:
    span = f"{start + 1}–{start + shown}" if shown > 1 else f"{start + 1}"
    title = f"Charts · {span} of {total}" if total else "Charts · none"
    error = pattern_error(pattern)
    return f"{title} · filter {pattern}{f': {error}' if error else ''}" if pattern else title
