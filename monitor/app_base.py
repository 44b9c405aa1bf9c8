"""What the parts of the application that hold actions need of the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from textual.app import App

from monitor.breakpoints import Breakpoints
from monitor.comparison import Comparison, Stoppable
from monitor.controlling import Controlling
from monitor.diagnosing import Diagnosing, DiagnosisState
from monitor.key_table import KeyTable
from monitor.replaying import Replaying
from monitor.run_model import RunModel
from monitor.sources.source import Source
from monitor.undisturbed import Undisturbed
from monitor.view_names import ViewName
from monitor.viewing import Viewing
from monitor.views.view import View


class AppBase(App[None]):
    """Declared here, made in :class:`monitor.app.MonitorApp`."""

    model: RunModel
    viewing: Viewing
    replaying: Replaying | None
    comparison: Comparison
    controlling: Controlling
    diagnosing: Diagnosing
    diagnosis: DiagnosisState
    breakpoints: Breakpoints
    keys: KeyTable
    undisturbed: Undisturbed
    known_flag: int | None
    wants_flag: bool
    message: str

    @property
    def view(self) -> View | None:
        """The view on screen; None before the first is mounted."""
        raise NotImplementedError

    @property
    def is_replay(self) -> bool:
        """The source is a saved trace."""
        return self.replaying is not None

    def draw(self) -> None:
        """Give every pane on screen its data."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """Show a sentence in the status line, until the next key, and in the event log."""
        raise NotImplementedError

    def acted(self, *, fresh: bool = False) -> None:
        """After a key: what was said before is no news any more. ``fresh``: draw what came since
        the last picture too."""
        raise NotImplementedError

    def ask(
        self,
        label: str,
        done: Callable[[str | None], None],
        value: str = "",
        changed: Callable[[str], None] | None = None,
    ) -> None:
        """Ask for a line of text in place of the status line."""
        raise NotImplementedError

    def from_thread(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Have something called in the app's thread, soon; nothing once the app has ended."""
        if self.is_running:
            self.call_later(call, *arguments)

    def switch_source(self, source: Source) -> None:
        """Watch another run instead; what was open is closed."""
        raise NotImplementedError

    def close_parts(self, parts: Sequence[Stoppable]) -> None:
        """Stop threads of a run behind the screen: its source may take a moment."""
        raise NotImplementedError

    def show_chart(self, key: str, step: int | None = None) -> None:
        """One chart in full, with the cursor at a step where one is given."""
        raise NotImplementedError

    def seek(self, step: int) -> None:
        """Show the run as it was at a step; a replay reads on to one that was not read yet."""
        raise NotImplementedError

    def action_show_view(self, name: ViewName) -> None:
        """Bring a view on screen."""
        raise NotImplementedError
