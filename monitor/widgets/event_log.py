"""The pane of what happened, newest at the bottom."""

from __future__ import annotations

import textwrap
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


def event_lines(event: Event, width: int, chosen: bool = False, full: bool = False) -> list[Line]:
    """Step, sign, kind and text of an event; the text in one line, or ``full`` in several."""
    step = f"{event.step:>7}" if event.step >= 0 else "      –"
    glyph = mark_glyph(event.kind)
    kind = event.kind.replace("_", " ")
    glyph_role = mark_role(StepMark(event.step, event.kind))
    head = f"{kind:<9} "
    indent = len(step) + 3 + len(head)
    room = max(0, width - indent)
    if chosen:
        step = glyphs.SELECTED + step[1:]
    text = clipped(event.text, room)
    told = textwrap.wrap(event.text, max(10, room)) if full and text != event.text else [text]
    role = "accent bold" if chosen else "fg"
    first: Line = (
        (step, "accent bold" if chosen else "muted"),
        (f" {glyph} ", "muted" if glyph_role == "faint" else glyph_role),
        (head, _ROLES.get(event.kind, "muted")),
        (told[0], role),
    )
    return [first, *(((" " * indent, "fg"), (part, role)) for part in told[1:])]


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
        self.redraw_of(events, chosen)

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        self._owners = ()
        if not self._events:
            return ((("nothing yet", "muted"),),)
        count = len(self._events)
        if count <= height:
            blocks = [
                event_lines(event, width, index == self._chosen, full=True)
                for index, event in enumerate(self._events)
            ]
            if sum(map(len, blocks)) <= height:
                self._first = 0
                return self._laid(blocks, 0)
        # A line each, but for the chosen one.
        chosen = count - 1 if self._chosen is None else self._chosen
        told = event_lines(self._events[chosen], width, self._chosen is not None, full=True)
        told = told[: 1 if self._chosen is None else max(1, height // 2)]
        first = first_shown(chosen, count, height - len(told) + 1, self._first)
        self._first = first
        return self._laid(
            [
                told if index == self._chosen else event_lines(self._events[index], width)
                for index in range(first, min(count, first + height - len(told) + 1))
            ],
            first,
        )

    def _laid(self, blocks: Sequence[list[Line]], first: int) -> tuple[Line, ...]:
        """The lines of some entries; what a click on each means is kept beside."""
        owners = [first + at for at, block in enumerate(blocks) for _ in block]
        # A click counts from the first entry in sight.
        self._owners = [*range(first), *owners]
        return tuple(line for block in blocks for line in block)
