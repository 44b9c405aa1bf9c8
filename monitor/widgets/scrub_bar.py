"""The line on which the past is gone through: where one stands, and what is marked on the way."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from textual.events import MouseDown, MouseMove, MouseUp
from textual.message import Message

from monitor import glyphs
from monitor.charts.line import Line, Piece, from_cells, width_of
from monitor.charts.line_chart import mark_glyph, mark_role
from monitor.charts.step_axis import dot_column, step_at
from monitor.run_model import StepMark
from monitor.step_window import Span
from monitor.widgets.line_pane import LinePane


class ScrubData(Struct, frozen=True):
    """``at`` is the step on screen, ``span`` the first and last step there are."""

    at: int
    span: Span
    word: str
    """What goes on: playing and how fast, paused, how far behind the newest."""
    sign: str
    marks: tuple[StepMark, ...] = ()


def rail(data: ScrubData, width: int) -> tuple[Line, int, int]:
    """The line, and where in it the rail begins and how wide it is."""
    left: list[Piece] = [
        (f"{data.sign} {data.word} ", "accent bold"),
        (f"{data.span[0]} ", "muted"),
    ]
    right: list[Piece] = [(f" {data.at} of {data.span[1]}", "fg")]
    start, room = width_of(left), width - width_of(left) - width_of(right)
    if room < 10:
        return ((*left[:1], *right), start, 0)
    at = dot_column(data.at, data.span, room)
    characters = [glyphs.STRONG_HORIZONTAL] * at + [glyphs.HORIZONTAL] * (room - at)
    roles = ["accent"] * at + ["faint"] * (room - at)
    for mark in data.marks:
        column = dot_column(mark.step, data.span, room)
        characters[column], roles[column] = mark_glyph(mark.kind), mark_role(mark)
    characters[at], roles[at] = glyphs.LIVE, "accent bold"
    return (*left, *from_cells(characters, roles), *right), start, room


class ScrubBar(LinePane):
    """There in a replay, and while a live run is looked at as it was."""

    class Sought(Message):
        """A place on the rail was clicked, or dragged to."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._data: ScrubData | None = None

    def show(self, data: ScrubData | None) -> None:
        """Draw a position; None hides the line."""
        self._data = data
        self.display = data is not None
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        return (rail(self._data, width)[0],) if self._data else ()

    def on_mouse_down(self, event: MouseDown) -> None:
        at = event.get_content_offset(self)
        if at is not None and self._seek(at.x):
            self.capture_mouse()

    def on_mouse_move(self, event: MouseMove) -> None:
        if self.app.mouse_captured is self:
            self._seek(event.get_content_offset_capture(self).x, dragged=True)

    def on_mouse_up(self, event: MouseUp) -> None:
        self.release_mouse()

    def _seek(self, column: int, dragged: bool = False) -> bool:
        """Go to the step at a column of the rail; ``dragged`` past an end, to that end."""
        if self._data is None:
            return False
        _, start, room = rail(self._data, self.content_size.width)
        if dragged:
            column = min(max(column, start), start + room - 1)
        if not room or not start <= column < start + room:
            return False
        step = round(step_at(column - start, self._data.span, room))
        if step != self._data.at:
            self.post_message(self.Sought(step))
        return True
