"""Filling a grid of charts with the page that holds the chosen one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from monitor.chart_data import chart_data
from monitor.charts.chart_pane import ChartPane
from monitor.comparison import WATCHED
from monitor.in_pieces import Piece
from monitor.viewing import pattern_error
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.pane_title import set_title

if TYPE_CHECKING:
    from monitor.app import MonitorApp


def pieces(grid: ChartGrid, app: MonitorApp) -> list[Piece]:
    """What draws as many charts as the grid has places, a call for each."""
    model, viewing = app.model, app.viewing
    diagnosis = app.shown.diagnosis.diagnosis
    grid.fit()
    keys = viewing.keys(model)
    start, page = viewing.page(keys, grid.places)
    chosen = viewing.chosen(keys)
    set_title(grid, _title(start, len(page), len(keys), viewing.pattern) + _runs(app))

    def draw(pane: ChartPane, index: int) -> None:
        data = None
        if index < len(page):
            selected = start + index == chosen
            data = chart_data(model, viewing, diagnosis, page[index], selected, app.comparison)
        pane.show(data)

    return [partial(draw, pane, index) for index, pane in enumerate(grid.panes)]


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
