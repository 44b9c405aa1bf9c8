"""Base of the panes that show a list to choose from: which part is seen, and what was clicked."""

from __future__ import annotations

from collections.abc import Sequence

from textual.events import Click
from textual.message import Message

from monitor.widgets.line_pane import LinePane


class ListPane(LinePane):
    """A subclass sets, when it composes, the first line in sight and whose each line is."""

    class Clicked(Message):
        """An entry was clicked: its place in the list."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._first = 0
        self._owners: Sequence[int] = ()
        """The entry that each line of the whole list belongs to; below 0: to none."""

    def on_click(self, event: Click) -> None:
        at = event.get_content_offset(self)
        line = self._first + at.y if at is not None else len(self._owners)
        if line < len(self._owners) and self._owners[line] >= 0:
            self.post_message(self.Clicked(self._owners[line]))
