"""Jump mode: a letter on everything that can be gone to; the next key goes there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.events import Click, Key
from textual.geometry import Offset
from textual.screen import ModalScreen
from textual.widgets import Static

LETTERS = "asdfghjklqwertyuiopzxcvbnm"


class JumpScreen(ModalScreen[int | None]):
    """Shows the letters over the screen; closes with the place of the target, or None."""

    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, places: Sequence[Offset]) -> None:
        """``places``: where each target begins, at most as many as there are letters."""
        super().__init__()
        self._places = tuple(places)[: len(LETTERS)]

    def compose(self) -> ComposeResult:
        for letter, place in zip(LETTERS, self._places, strict=False):
            mark = Static(letter, classes="jump-letter")
            mark.styles.offset = (place.x, place.y)
            yield mark

    def on_key(self, event: Key) -> None:
        event.stop()
        event.prevent_default()
        at = LETTERS.find(event.character) if event.character else -1
        self.dismiss(at if 0 <= at < len(self._places) else None)

    def on_click(self, event: Click) -> None:
        self.dismiss(None)
