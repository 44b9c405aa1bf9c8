"""The area of line charts: as many as fit, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Container
from textual.events import Resize
from textual.message import Message

from monitor.charts.chart_pane import ChartPane
from monitor.charts.line_chart import ChartData

CHART_WIDTH, CHART_HEIGHT = 36, 8
"""The smallest a chart becomes before fewer are shown."""
MAX_CHARTS = 12


def grid_shape(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of charts for an area; at least one chart, at most MAX_CHARTS."""
    columns = max(1, min(3, width // CHART_WIDTH))
    rows = max(1, min(MAX_CHARTS // columns, height // CHART_HEIGHT))
    return columns, rows


class ChartGrid(Container, can_focus=False):
    """Shows the charts it is given; tells how many it has room for."""

    class Reshaped(Message):
        """Another number of charts fits now."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.places = 1

    def compose(self) -> ComposeResult:
        for _ in range(MAX_CHARTS):
            yield ChartPane()

    def on_resize(self, event: Resize) -> None:
        columns, rows = grid_shape(*self.content_size)
        self.styles.grid_size_columns, self.styles.grid_size_rows = columns, rows
        self.places = columns * rows
        for index, pane in enumerate(self.query(ChartPane)):
            pane.display = index < self.places
        self.post_message(self.Reshaped())

    @property
    def panes(self) -> list[ChartPane]:
        """The charts on screen, in order."""
        return list(self.query(ChartPane))[: self.places]

    def show(self, title: str, charts: Sequence[ChartData]) -> None:
        """Draw these charts, at most as many as there are places."""
        self.border_title = title
        for index, pane in enumerate(self.panes):
            pane.show(charts[index] if index < len(charts) else None)
