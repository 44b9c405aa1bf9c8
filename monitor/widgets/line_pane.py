"""A widget that shows lines of text and resends only those that changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.filter import ANSIToTruecolor
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from monitor.charts.line import Line, text_of
from monitor.glyphs import to_ascii
from monitor.palette import Palette, palette_for

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
        self._drawn_of: tuple[object, ...] = ()
        self._strips: dict[int, tuple[Line, Strip]] = {}
        """What was made of the lines on screen, by their place."""
        self._made_with: tuple[Palette, Style, int] | None = None

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
        if drawn_with != self._drawn_with or len(lines) != len(self._lines):
            self._lines, self._drawn_with = lines, drawn_with
            self.refresh()
            return
        old = self._lines
        changed = [y for y, line in enumerate(lines) if line != old[y]]
        if changed:
            # A line that is equal stays the one that its strip was made of.
            kept = list(old)
            for y in changed:
                kept[y] = lines[y]
            self._lines = tuple(kept)
            self.refresh(*[Region(0, y, width, 1) for y in changed])

    def redraw_of(self, *told: object) -> None:
        """Compose again unless the picture is of these very things, in this theme and size."""
        now = (told, self.app.theme, self.content_size)
        if now != self._drawn_of:
            self._drawn_of = now
            self.redraw()

    @property
    def up_to_date(self) -> bool:
        """What is on screen was drawn in this theme and for this size."""
        width, height = self.content_size
        return self._drawn_with == (self.app.theme, width) and len(self._lines) == height

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

    def render_lines(self, crop: Region) -> list[Strip]:
        """A pane without a border is its lines: laying out the styles of each would cost more
        than drawing them."""
        width = self.size.width
        if crop.column_span != (0, width) or self.gutter.totals != (0, 0) or not self._colours_true:
            return super().render_lines(crop)
        self._prepare()
        return [self._strip(y, width) for y in crop.line_range]

    @property
    def _colours_true(self) -> bool:
        """Nothing changes the colours between here and the terminal."""
        return all(isinstance(each, ANSIToTruecolor) for each in self.get_line_filters())

    def render_line(self, y: int) -> Strip:
        self._prepare()
        return self._strip(y, self.content_size.width)

    def _prepare(self) -> None:
        """What was made with other colours or characters counts for nothing."""
        palette = palette_for(self.app.current_theme)
        ground = Style(bgcolor=self.background_colors[1].rich_color)
        made_with = (palette, ground, 2 * self.monitor.ascii_only + self.app.no_color)
        if made_with != self._made_with:
            self._made_with = made_with
            self._strips.clear()

    def _strip(self, y: int, width: int) -> Strip:
        assert self._made_with is not None
        palette, ground, _ = self._made_with
        if y >= len(self._lines):
            return Strip.blank(width, ground)
        line = self._lines[y]
        known = self._strips.get(y)
        if known is not None and known[0] is line and known[1].cell_length == width:
            return known[1]
        strip = self._made(line, width, palette, ground)
        self._strips[y] = line, strip
        return strip

    def _made(self, line: Line, width: int, palette: Palette, ground: Style) -> Strip:
        whole, only_ascii = text_of(line), self.monitor.ascii_only
        if not (whole.isprintable() and (whole.isascii() or not only_ascii)):
            line = tuple([(safe(text), role) for text, role in line])
            if only_ascii:
                line = tuple([(to_ascii(text), role) for text, role in line])
            whole = text_of(line)
        styles = palette.on(ground, plain=self.app.no_color)
        segments = [Segment(text, styles[role]) for text, role in line if text]
        taken = cell_len(whole)
        if taken < width:
            segments.append(Segment(" " * (width - taken), ground))
        strip = Strip(segments, max(taken, width))
        return strip if taken <= width else strip.crop(0, width)
