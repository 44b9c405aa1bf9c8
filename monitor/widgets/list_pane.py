"""Base of the panes that show a list to choose from: which part is seen, and what was clicked."""

from __future__ import annotations

from collections.abc import Sequence

from textual.events import Click, MouseEvent, MouseScrollDown, MouseScrollUp
from textual.message import Message

from monitor.widgets.line_pane import LinePane


class ListPane(LinePane):
    """A subclass sets, when it composes, the first line in sight and whose each line is."""

    class Clicked(Message):
        """An entry was clicked: its place in the list; ``twice``: a double click."""

        def __init__(self, pane: ListPane, index: int, twice: bool = False) -> None:
            super().__init__()
            self.pane, self.index, self.twice = pane, index, twice

        @property
        def control(self) -> ListPane:
            """The pane, so that handlers can name it."""
            return self.pane

    class Wheeled(Message):
        """The wheel was turned over the list: so many entries on."""

        def __init__(self, pane: ListPane, by: int) -> None:
            super().__init__()
            self.pane, self.by = pane, by

        @property
        def control(self) -> ListPane:
            """The pane, so that handlers can name it."""
            return self.pane

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._first = 0
        self._owners: Sequence[int] = ()
        """The entry that each line of the whole list belongs to; below 0: to none."""

    def on_click(self, event: Click) -> None:
        at = event.get_content_offset(self)
        line = self._first + at.y if at is not None else len(self._owners)
        if line < len(self._owners) and self._owners[line] >= 0:
            self.post_message(self.Clicked(self, self._owners[line], event.chain == 2))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self._wheel(event, -1)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self._wheel(event, 1)

    def _wheel(self, event: MouseEvent, by: int) -> None:
        event.stop()
        self.post_message(self.Wheeled(self, by))
