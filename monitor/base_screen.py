"""The screen that the views lie on, and when it is first seen."""

from __future__ import annotations

from textual.events import ScreenResume
from textual.geometry import Size
from textual.screen import Screen

from monitor.widgets.front_first import FrontFirst

WIDTH_CLASSES = ((0, "-narrow"), (100, "-medium"), (160, "-wide"))
"""Style classes of a screen, each from so many cells on."""
HEIGHT_CLASSES = ((0, "-short"), (32, "-tall"))


class BaseScreen(Screen[None], inherit_bindings=False):
    """Its keys are the key table's alone. Nothing of it is drawn before :meth:`begin`.

    It has the classes of its size from the start: styles are then found a single time.
    """

    def __init__(self, size: Size) -> None:
        super().__init__(id="_default", classes=" ".join(size_classes(size)))
        self._compositor = self._front_first = FrontFirst()
        self._front_first.held = True
        self._shown_before = False

    def _on_screen_resume(self, event: ScreenResume) -> None:
        # When it is first shown every pane has just been given its styles.
        event.refresh_styles = event.refresh_styles and self._shown_before
        self._shown_before = True

    def begin(self) -> None:
        """Show the first picture, and from now on every one."""
        if self._front_first.held:
            self._front_first.held = False
            self._compositor_refresh()


def size_classes(size: Size) -> tuple[str, str]:
    """The classes of a width and a height, as Textual's breakpoints give them."""
    width, height = (
        [name for least, name in classes if least <= cells][-1]
        for classes, cells in zip((WIDTH_CLASSES, HEIGHT_CLASSES), size, strict=True)
    )
    return width, height
