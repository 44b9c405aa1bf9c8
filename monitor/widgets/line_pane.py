"""A widget that shows lines of text and resends only those that changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from monitor.charts.line import Line
from monitor.glyphs import to_ascii
from monitor.palette import palette_for

if TYPE_CHECKING:
    from monitor.app import MonitorApp


def safe(text: str) -> str:
    """The text with control characters replaced: what a run says never steers the terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


class LinePane(Widget, can_focus=False):
    """Base of all panes: subclasses say what to draw in :meth:`compose_lines`.

    ``redraw`` compares with what is on screen and refreshes the changed lines only; a pane that
    shows the same as before costs nothing on the terminal.
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: tuple[Line, ...] = ()
        self._drawn_with: tuple[str, int] = ("", 0)

    @property
    def monitor(self) -> MonitorApp:
        """The app, by its own type."""
        return cast("MonitorApp", self.app)

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        """What to show in a content area of this size. Pure with respect to the widget's data."""
        raise NotImplementedError

    @property
    def plain(self) -> bool:
        """What is told by colours elsewhere must be told by characters."""
        return self.monitor.ascii_only or self.app.no_color

    def redraw(self) -> None:
        """Compose again, refresh the lines that differ."""
        width, height = self.content_size
        if width <= 0 or height <= 0:
            return
        lines = tuple(self.compose_lines(width, height))[:height]
        drawn_with = (self.app.theme, width)
        if drawn_with != self._drawn_with or abs(len(lines) - len(self._lines)) > 0:
            self._lines, self._drawn_with = lines, drawn_with
            self.refresh()
            return
        changed = [
            y for y, (new, old) in enumerate(zip(lines, self._lines, strict=True)) if new != old
        ]
        self._lines = lines
        if changed:
            self.refresh(*(Region(0, y, width, 1) for y in changed))

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines on screen, for tests."""
        return self._lines

    @property
    def text(self) -> str:
        """The characters on screen, for tests."""
        return "\n".join("".join(text for text, _ in line) for line in self._lines)

    def on_resize(self) -> None:
        self.redraw()

    def render_line(self, y: int) -> Strip:
        width = self.content_size.width
        ground = Style(bgcolor=self.background_colors[1].rich_color)
        if y >= len(self._lines):
            return Strip.blank(width, ground)
        palette = palette_for(self.app.current_theme)
        ascii_only = self.monitor.ascii_only
        style = palette.plain if self.app.no_color else palette.style
        segments = [
            Segment(to_ascii(safe(text)) if ascii_only else safe(text), style(role))
            for text, role in self._lines[y]
            if text
        ]
        return Strip(segments).adjust_cell_length(width).simplify().apply_style(ground)
