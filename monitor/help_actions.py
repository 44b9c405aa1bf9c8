"""The help and what the palette offers, both from the key table."""

from __future__ import annotations

from collections.abc import Iterable

from textual import events
from textual.app import SystemCommand
from textual.screen import Screen

from monitor.app_base import AppBase
from monitor.help_topics import HelpTopic
from monitor.keys import Key
from monitor.view_names import ViewName, title_of
from monitor.widgets.help_screen import HelpScreen


class HelpActions(AppBase):
    """Part of the application."""

    def action_help(self) -> None:
        topics = self.view.help_topics() if self.view is not None else []
        header = self.model.header
        facts = header.facts if header is not None else {}
        closing = self.keys.of("help").keys
        self.push_screen(HelpScreen(self.keys_now(), topics, facts, closing))

    def on_key(self, event: events.Key) -> None:
        """A key that nothing took on its way here."""
        told = self.keys.elsewhere(event.key, self.is_replay, self.viewing.view)
        if told and len(self.screen_stack) == 1:
            self.message = told
            self.draw()

    def keys_now(self) -> tuple[Key, ...]:
        """Keys of any view that work on this source, those of the view on screen first."""
        here = self.keys.here(self.is_replay, self.viewing.view)
        return (*here, *(key for key in self.keys.here(self.is_replay) if key not in here))

    def explain(self, topic: HelpTopic) -> None:
        """What there is to say on one thing, wherever the cursor is."""
        self.push_screen(HelpScreen((), [topic], {}, self.keys.of("help").keys))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette offers the themes and every command of the key table.

        One that belongs to other views goes there first.
        """
        yield SystemCommand("Theme", "change the colours", self.action_change_theme)
        view = self.viewing.view
        here = self.keys.here(self.is_replay, view)
        for key in here:
            yield self._command(key, view, f"key {key.shown}")
        told = {f"{key.group}: {key.help}" for key in here}
        for key in self.keys.here(self.is_replay):
            if key not in here and f"{key.group}: {key.help}" not in told:
                # Charts in full, where a command belongs to several views.
                there = "metrics" if "metrics" in key.views else key.views[0]
                yield self._command(key, there, f"key {key.shown} in {title_of(there)}")

    def _command(self, key: Key, view: ViewName, told: str) -> SystemCommand:
        def run() -> None:
            if self.viewing.view != view:
                self.action_show_view(view)
            # A view may only be made now: it has to be there before the command.
            self.call_after_refresh(self.run_action, key.action)

        return SystemCommand(f"{key.group}: {key.help}", told, run)
