"""A line of text in roles."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.charts.line import Line, Piece, fitted
from monitor.widgets.line_pane import LinePane


class TextPane(LinePane):
    """Shows one line, cut at its edge."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._pieces: tuple[Piece, ...] = ()

    def show(self, pieces: Sequence[Piece]) -> None:
        """Draw another line."""
        self._pieces = tuple(pieces)
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        return (fitted(self._pieces, width),)
