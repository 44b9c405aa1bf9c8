"""The area of line charts: as many as fit, or as many as wanted, a page at a time."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container
from textual.geometry import Size
from textual.message import Message

from monitor.charts.chart_pane import ChartPane

CHART_WIDTH, CHART_HEIGHT = 36, 8
"""The smallest a chart becomes before fewer are shown, unless more are asked for."""
LEAST_WIDTH, LEAST_HEIGHT = 20, 4
MAX_CHARTS = 12
_WIDE = 4.5
"""Cells across for a cell down: the shape of a chart that reads well."""


def grid_shape(width: int, height: int, wanted: int = 0) -> tuple[int, int]:
    """Columns and rows of charts for an area; at least one chart, at most MAX_CHARTS.

    ``wanted`` 0: as many as fit well. Otherwise that many, in the shape that suits them best, or
    fewer where they would be too small to read.
    """
    if not wanted:
        columns = max(1, min(3, width // CHART_WIDTH))
        rows = max(1, min(MAX_CHARTS // columns, height // CHART_HEIGHT))
        return columns, rows
    shapes = [
        (columns, -(-wanted // columns))
        for columns in range(1, wanted + 1)
        if columns <= max(1, width // LEAST_WIDTH)
    ]
    # No empty place if that can be had, then the best proportions.
    columns, rows = min(
        shapes,
        key=lambda s: (
            s[0] * s[1] - wanted,
            abs((width / s[0]) / max(height / s[1], 1) - _WIDE),
        ),
    )
    return columns, max(1, min(rows, height // LEAST_HEIGHT))


class ChartGrid(Container, can_focus=False):
    """Room for charts: tells how many fit."""

    class Reshaped(Message):
        """Another number of charts fits now."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.places = 1
        self._wanted = 0
        self._fitted: tuple[Size, int] | None = None
        self._all = [ChartPane() for _ in range(MAX_CHARTS)]

    def compose(self) -> ComposeResult:
        yield from self._all

    def want(self, count: int) -> None:
        """Show this many charts; 0: as many as fit well."""
        self._wanted = count
        self.fit()

    def on_resize(self) -> None:
        self.fit()

    def fit(self) -> None:
        """As many places as the area has room for. Also before drawing: a size may be told before
        the charts are there."""
        now = (self.content_size, self._wanted)
        if now == self._fitted or not self.is_mounted:
            return
        self._fitted = now
        columns, rows = grid_shape(*self.content_size, self._wanted)
        self.styles.grid_size_columns, self.styles.grid_size_rows = columns, rows
        self.places = columns * rows
        for index, pane in enumerate(self._all):
            pane.display = index < self.places
        self.post_message(self.Reshaped())

    @property
    def panes(self) -> list[ChartPane]:
        """The charts on screen, in order."""
        return self._all[: self.places]
