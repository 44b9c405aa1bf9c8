"""The help and what the palette offers, both from the key table."""

from __future__ import annotations

from collections.abc import Iterable

from textual.app import SystemCommand
from textual.screen import Screen

from monitor.app_base import AppBase
from monitor.keys import Key
from monitor.widgets.help_screen import HelpScreen


class HelpActions(AppBase):
    """Part of the application."""

    def action_help(self) -> None:
        topics = self.view.help_topics() if self.view is not None else []
        header = self.model.header
        facts = header.facts if header is not None else {}
        closing = self.keys.of("help").keys
        self.push_screen(HelpScreen(self.keys_now(), topics, facts, closing))

    def keys_now(self) -> tuple[Key, ...]:
        """Keys of any view that work on this source, those of the view on screen first."""
        here = self.keys.here(self.is_replay, self.viewing.view)
        return (*here, *(key for key in self.keys.here(self.is_replay) if key not in here))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette offers the themes and every command of the key table."""
        yield SystemCommand("Theme", "change the colours", self.action_change_theme)
        for key in self.keys.here(self.is_replay, self.viewing.view):
            yield SystemCommand(
                f"{key.group}: {key.help}",
                f"key {key.shown}",
                lambda action=key.action: self._run(action),
            )

    def _run(self, action: str) -> None:
        self.call_later(self.run_action, action)
