"""The pane of what happened, newest at the bottom."""

from __future__ import annotations

from collections.abc import Sequence

from monitor import glyphs
from monitor.charts.line import Line
from monitor.charts.line_chart import mark_glyph, mark_role
from monitor.formatting import clipped
from monitor.run_model import StepMark
from monitor.widgets.list_pane import ListPane
from monitor.widgets.list_window import first_shown
from probe.schema import Event

_ROLES = {"fault": "bad", "flagged": "warn", "probe_off": "bad", "lost": "bad", "crash": "bad"}


def event_line(event: Event, width: int, chosen: bool = False) -> Line:
    """Step, sign, kind and text of an event in one line."""
    step = f"{event.step:>7}" if event.step >= 0 else "      –"
    glyph = mark_glyph(event.kind)
    kind = event.kind.replace("_", " ")
    glyph_role = mark_role(StepMark(event.step, event.kind))
    head = f"{kind:<9} "
    room = max(0, width - len(step) - 3 - len(head))
    if chosen:
        step = glyphs.SELECTED + step[1:]
    return (
        (step, "accent bold" if chosen else "muted"),
        (f" {glyph} ", "muted" if glyph_role == "faint" else glyph_role),
        (head, _ROLES.get(event.kind, "muted")),
        (clipped(event.text, room), "accent bold" if chosen else "fg"),
    )


class EventLog(ListPane):
    """Events of the run and the monitor's own notes: the newest, or those around a chosen one."""

    BORDER_TITLE = "Events"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._events: tuple[Event, ...] = ()
        self._chosen: int | None = None

    def show(self, events: tuple[Event, ...], chosen: int | None = None) -> None:
        """Draw events; without a chosen one as many of the newest as fit."""
        self._events, self._chosen = events, chosen
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        self._owners = range(len(self._events))
        if not self._events:
            return ((("nothing yet", "muted"),),)
        count = len(self._events)
        newest = count - 1
        chosen = newest if self._chosen is None else self._chosen
        self._first = first_shown(chosen, count, height, self._first)
        return tuple(
            event_line(self._events[index], width, index == self._chosen)
            for index in range(self._first, min(count, self._first + height))
        )
