"""The pane of what happened, newest at the bottom."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.charts.line import Line
from monitor.charts.line_chart import mark_glyph, mark_role
from monitor.formatting import clipped
from monitor.run_model import StepMark
from monitor.widgets.line_pane import LinePane
from probe.schema import Event

_ROLES = {"fault": "bad", "flagged": "warn", "probe_off": "bad", "lost": "bad", "crash": "bad"}


def event_line(event: Event, width: int) -> Line:
    """Step, sign, kind and text of an event in one line."""
    step = f"{event.step:>7}" if event.step >= 0 else "      –"
    glyph = mark_glyph(event.kind)
    kind = event.kind.replace("_", " ")
    glyph_role = mark_role(StepMark(event.step, event.kind))
    head = f"{kind:<9} "
    room = max(0, width - len(step) - 3 - len(head))
    return (
        (step, "muted"),
        (f" {glyph} ", "muted" if glyph_role == "faint" else glyph_role),
        (head, _ROLES.get(event.kind, "muted")),
        (clipped(event.text, room), "fg"),
    )


class EventLog(LinePane):
    """The newest events of the run, and the monitor's own notes."""

    BORDER_TITLE = "Events"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._events: tuple[Event, ...] = ()

    def show(self, events: tuple[Event, ...]) -> None:
        """Draw the events given, as many of the newest as fit."""
        self._events = events
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        if not self._events:
            return ((("nothing yet", "muted"),),)
        return tuple(event_line(event, width) for event in self._events[-height:])
