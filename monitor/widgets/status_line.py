"""One line above the footer, there only while there is something to say."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.charts.line import Line
from monitor.formatting import clipped
from monitor.widgets.line_pane import LinePane


class StatusLine(LinePane):
    """A sentence for the person: why the run was lost, what a request brought, the filter."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._text, self._role = "", "fg"

    def show(self, text: str, role: str = "fg") -> None:
        """Say ``text``; empty hides the line."""
        self._text, self._role = text, role
        self.display = bool(text)
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        return (((clipped(self._text, width), self._role),),)
