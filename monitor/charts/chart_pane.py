"""The widget of one line chart."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace
from textual.events import Click
from textual.message import Message

from monitor.charts.line import Line
from monitor.charts.line_chart import (
    LABEL_WIDTH,
    ChartData,
    draw,
    has_room,
    plot_columns,
    plot_of,
)
from monitor.charts.step_axis import step_at
from monitor.charts.step_pane import StepPane


class ChartPane(StepPane):
    """A line chart; see :mod:`monitor.charts.line_chart` for what it draws."""

    class Clicked(Message):
        """The plot of a chart was clicked at a step; ``twice``: a double click."""

        def __init__(self, title: str, step: float, twice: bool = False) -> None:
            super().__init__()
            self.title, self.step, self.twice = title, step, twice

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.data: ChartData | None = None

    def show(self, data: ChartData | None) -> None:
        """Draw other data; None leaves the place empty."""
        same = self.data is not None and data is not None and self.data.looks_like(data)
        self.data = data
        if not (same and self.up_to_date):
            self.redraw()

    def prepare(self, data: ChartData) -> None:
        """Plot what is to be shown soon, so that showing it is quick."""
        width, height = self.content_size
        if has_room(width, height):
            plot_of(self._drawable(data), width, height, self.monitor.ascii_only)

    def _drawable(self, data: ChartData) -> ChartData:
        # Without colours the raw line cannot be told from its average.
        return replace(data, raw=()) if self.plain else data

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        if self.data is None:
            return ()
        data = self._drawable(self.data)
        return draw(data, width, height, self.monitor.ascii_only, self.plain)

    def step_of(self, column: int) -> float | None:
        """The step at a column of the widget; None outside the plot."""
        if self.data is None:
            return None
        plot = plot_columns(len(self.data.curves), self.content_size.width)
        at = column - LABEL_WIDTH - 1
        if not 0 <= at < plot:
            return None
        place = step_at(at, self.data.span, plot)
        return place if self.data.step_of is None else self.data.step_of(place)

    def on_click(self, event: Click) -> None:
        offset = event.get_content_offset(self)
        step = self.step_of(offset.x) if offset else None
        if self.data is not None and step is not None:
            self.post_message(self.Clicked(self.data.title, step, event.chain == 2))
