"""The metrics: one to twelve charts."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult

from monitor.in_pieces import Piece
from monitor.views import chart_page
from monitor.views.view import View
from monitor.widgets.chart_grid import ChartGrid


class MetricsView(View):
    """The curves, as many at once as the person wants."""

    view_name = "metrics"
    main_pane = "metric-charts"

    def compose(self) -> ComposeResult:
        yield ChartGrid(id="metric-charts").add_class("pane")

    def pieces(self) -> Sequence[Piece]:
        viewing = self.monitor.viewing
        grid = self.query_one(ChartGrid)
        grid.want(1 if viewing.alone else viewing.grid)
        return chart_page.pieces(grid, self.monitor)

    def preparations(self) -> Sequence[Piece]:
        return chart_page.preparations(self.query_one(ChartGrid), self.monitor)

    def enter(self) -> None:
        self.monitor.viewing.alone = not self.monitor.viewing.alone
        self.monitor.acted()

    @property
    def labels(self) -> dict[str, str]:
        return {"enter": "All charts"} if self.monitor.viewing.alone else {}

    def leave(self) -> bool:
        was, self.monitor.viewing.alone = self.monitor.viewing.alone, False
        return was

    @on(ChartGrid.Reshaped)
    def _reshaped(self) -> None:
        self.redraw_if_shown()
