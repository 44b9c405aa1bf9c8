"""The events: what happened, and the way to when it did."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult

from monitor.views.view import View
from monitor.widgets.event_log import EventLog
from monitor.widgets.pane_title import set_title
from probe.schema import Event


class EventsView(View):
    """The log of the run and of the monitor. Until one is chosen it follows the newest."""

    view_name = "events"
    main_pane = "event-list"

    def __init__(self) -> None:
        super().__init__()
        self._chosen: Event | None = None

    def compose(self) -> ComposeResult:
        yield EventLog(id="event-list").add_class("pane")

    def _index(self) -> int | None:
        # Events are sorted in as they come: the chosen one is held by itself, not by its place.
        events = self.monitor.shown.events
        return next((i for i, event in enumerate(events) if event is self._chosen), None)

    def draw(self) -> None:
        log = self.query_one(EventLog)
        events = self.monitor.shown.events
        log.show(events, self._index())
        set_title(log, f"Events · {len(events)}" if events else "Events")

    def choose(self, by: int) -> None:
        events = self.monitor.shown.events
        if not events:
            return
        at = self._index()
        start = len(events) if at is None else at
        target = min(max(start + by, 0), len(events) - 1)
        at_end = by > 0 and start + by > len(events) - 1
        self._chosen = None if at_end else events[target]
        self.monitor.acted()

    def enter(self) -> None:
        events = self.monitor.shown.events
        event = self._chosen or (events[-1] if events else None)
        if event is None or event.step < 0:
            self.monitor.say("this event belongs to no step")
            return
        self.monitor.go_to_step(event.step)

    def leave(self) -> bool:
        was, self._chosen = self._chosen, None
        return was is not None

    @on(EventLog.Clicked)
    def _clicked(self, message: EventLog.Clicked) -> None:
        self._chosen = self.monitor.shown.events[message.index]
        self.monitor.acted()
        if message.twice:
            self.enter()
