"""The widget of one line chart."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.charts.line import Line
from monitor.charts.line_chart import ChartData, draw
from monitor.widgets.line_pane import LinePane


class ChartPane(LinePane):
    """A line chart; see :mod:`monitor.charts.line_chart` for what it draws."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.data: ChartData | None = None

    def show(self, data: ChartData | None) -> None:
        """Draw other data; None leaves the place empty."""
        self.data = data
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        if self.data is None:
            return ()
        return draw(self.data, width, height, self.monitor.ascii_only)
