"""A line to type into, in place of the status line."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Input, Label


class Prompt(Horizontal):
    """Asks for one value. ``on_change`` is called while typing, ``on_done`` at the end.

    ``on_done`` gets None where the person gave up with Escape.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "give_up", show=False)]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._on_change: Callable[[str], None] | None = None
        self._on_done: Callable[[str | None], None] | None = None

    def compose(self) -> ComposeResult:
        yield Label("", id="prompt-label")
        yield Input(compact=True, id="prompt-input", select_on_focus=False, disabled=True)

    @property
    def asking(self) -> bool:
        return self.display

    def ask(
        self,
        label: str,
        value: str,
        on_done: Callable[[str | None], None],
        on_change: Callable[[str], None] | None = None,
    ) -> None:
        """Show the line and take the keyboard."""
        self.query_one(Label).update(label)
        field = self.query_one(Input)
        self._on_change = None
        field.value = value
        field.cursor_position = len(value)  # else it stays where the last text's was
        self.display = True
        field.disabled = False
        self._on_change, self._on_done = on_change, on_done
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self._on_change is not None and self.display:
            self._on_change(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._finish(event.value)

    def action_give_up(self) -> None:
        self._finish(None)

    def _finish(self, value: str | None) -> None:
        self.display = False
        self.query_one(Input).disabled = True
        self.screen.set_focus(None)
        done, self._on_done, self._on_change = self._on_done, None, None
        if done is not None:
            done(value)
