"""The line of views, the one on screen marked; at its right what the steps are narrowed to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.events import Click
from textual.message import Message

from monitor.charts.line import Line, Piece, fitted, spread, width_of
from monitor.view_names import VIEWS, ViewName
from monitor.widgets.line_pane import LinePane


def tabs(
    current: ViewName, width: int, keys: Mapping[ViewName, str]
) -> tuple[Line, tuple[tuple[int, int, ViewName], ...]]:
    """The line, and the cells (start, stop) of each view in it. Narrow: titles only where room.

    ``keys``: the key of each view as a person reads it.
    """
    for titled in (True, False):
        pieces: list[Piece] = []
        places = []
        for view in VIEWS:
            start = width_of(pieces)
            on = view.name == current
            # Brackets, so that it can be seen without colours too.
            left, right = ("[", "]") if on else (" ", " ")
            pieces.append((left, "accent bold"))
            pieces.append((keys[view.name], "accent bold"))
            if titled or on:
                pieces.append((f" {view.title}", "fg bold" if on else "muted"))
            pieces.append((right, "accent bold"))
            places.append((start, width_of(pieces), view.name))
        if width_of(pieces) <= width:
            break
    return tuple(pieces), tuple(places)


class ViewBar(LinePane):
    """Views by number and name."""

    class Chosen(Message):
        """A view was clicked."""

        def __init__(self, view: ViewName) -> None:
            super().__init__()
            self.view: ViewName = view

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view: ViewName = "overview"
        self._notes: tuple[Piece, ...] = ()

    @property
    def _keys(self) -> dict[ViewName, str]:
        table = self.monitor.keys
        return {view.name: table.of(f"show_view('{view.name}')").shown for view in VIEWS}

    def show(self, view: ViewName, notes: Sequence[Piece]) -> None:
        """Mark a view; ``notes`` stand at the right where there is room."""
        self._view, self._notes = view, tuple(notes)
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        line, _ = tabs(self._view, width, self._keys)
        notes = self._notes
        if width_of(line) + width_of(notes) + 1 > width:
            # What the charts are narrowed to matters more than names of other views.
            line, _ = tabs(self._view, max(0, width - width_of(notes) - 1), self._keys)
        if width_of(line) + width_of(notes) + 1 > width:
            return (fitted(line, width),)
        return (spread(line, notes, width),)

    def on_click(self, event: Click) -> None:
        at = event.get_content_offset(self)
        width = self.content_size.width
        line, places = tabs(self._view, width, self._keys)
        if width_of(line) + width_of(self._notes) + 1 > width:
            _, places = tabs(self._view, max(0, width - width_of(self._notes) - 1), self._keys)
        for start, stop, view in places:
            if at is not None and start <= at.x < stop:
                self.post_message(self.Chosen(view))
