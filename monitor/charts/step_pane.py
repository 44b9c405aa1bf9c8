"""Base of the panes with an axis of steps: the wheel zooms, sideways or with shift it pans."""

from __future__ import annotations

from textual.events import (
    MouseEvent,
    MouseScrollDown,
    MouseScrollLeft,
    MouseScrollRight,
    MouseScrollUp,
)
from textual.message import Message

from monitor.widgets.line_pane import LinePane

PAN = 0.1
"""Share of a zoom's width that one turn of the wheel moves it."""


class StepPane(LinePane):
    """A subclass says in :meth:`step_of` which step each of its columns stands for."""

    class Wheeled(Message):
        """The wheel was turned over a step; ``inwards``: away from the person."""

        def __init__(self, step: float, inwards: bool) -> None:
            super().__init__()
            self.step, self.inwards = step, inwards

    class Panned(Message):
        """The part shown is to move by a share of its width."""

        def __init__(self, share: float) -> None:
            super().__init__()
            self.share = share

    def step_of(self, column: int) -> float | None:
        """The step at a column of the widget; None where there is none."""
        raise NotImplementedError

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self._wheel(event, -1)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self._wheel(event, 1)

    def on_mouse_scroll_left(self, event: MouseScrollLeft) -> None:
        self._wheel(event, -1, sideways=True)

    def on_mouse_scroll_right(self, event: MouseScrollRight) -> None:
        self._wheel(event, 1, sideways=True)

    def _wheel(self, event: MouseEvent, by: int, sideways: bool = False) -> None:
        offset = event.get_content_offset(self)
        step = self.step_of(offset.x) if offset else None
        if step is None:
            return
        event.stop()
        if sideways or event.shift:
            self.post_message(self.Panned(by * PAN))
        else:
            self.post_message(self.Wheeled(step, inwards=by < 0))
