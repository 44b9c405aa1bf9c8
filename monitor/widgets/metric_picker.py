"""The screen that asks which metric the heatmap shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option


class MetricPicker(ModalScreen[str | None]):
    """Type to narrow the list, Enter takes the marked metric, Escape leaves all as it was.

    Metrics of single layers' heads (``attention@2/entropy``) appear when ``@`` is typed.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss_none", show=False),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
    ]

    def __init__(self, keys: Sequence[str], current: str | None) -> None:
        super().__init__()
        self._keys = tuple(keys)
        self._current = current

    def compose(self) -> ComposeResult:
        with Vertical(id="picker"):
            yield Input(placeholder=self._hint(), compact=True)
            yield OptionList(*(Option(key, id=key) for key in self._shown("")), compact=True)

    def on_mount(self) -> None:
        self.query_one("#picker").border_title = "Heatmap metric"
        options = self.query_one(OptionList)
        options.can_focus = False
        shown = self._shown("")
        if self._current in shown:
            options.highlighted = shown.index(self._current)
        self.query_one(Input).focus()

    def _hint(self) -> str:
        heads = any("@" in key for key in self._keys)
        return "type to narrow; @2 for the heads of layer 2" if heads else "type to narrow"

    def _shown(self, text: str) -> list[str]:
        """Metrics that hold every word of ``text``."""
        words = text.lower().split()
        keys = [key for key in self._keys if "@" in text or "@" not in key]
        return [key for key in keys if all(word in key for word in words)]

    @on(Input.Changed)
    def narrow(self, event: Input.Changed) -> None:
        """Only metrics that hold every word typed."""
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options(Option(key, id=key) for key in self._shown(event.value))
        options.highlighted = 0 if options.option_count else None

    @on(Input.Submitted)
    def take(self) -> None:
        """Close with the marked metric."""
        options = self.query_one(OptionList)
        if options.highlighted is not None:
            self.dismiss(options.get_option_at_index(options.highlighted).id)

    @on(OptionList.OptionSelected)
    def take_clicked(self, event: OptionList.OptionSelected) -> None:
        """Close with the metric that was clicked."""
        self.dismiss(event.option.id)

    def action_dismiss_none(self) -> None:
        self.dismiss(None)

    def action_move(self, by: int) -> None:
        options = self.query_one(OptionList)
        if options.option_count:
            options.highlighted = ((options.highlighted or 0) + by) % options.option_count
