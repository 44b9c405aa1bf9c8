"""The widgets of the heatmap: layer labels, tiles of columns, legend.

A refreshed line is resent from its widget's left edge on; with a widget for every
:data:`TILE_WIDTH` columns a new step resends one tile, not the whole width.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.events import Click
from textual.message import Message

from monitor import glyphs
from monitor.charts.heatmap import Heat, draw_tile, legend, rows_for, shown_layer
from monitor.charts.line import Line
from monitor.charts.step_pane import StepPane
from monitor.formatting import clipped
from monitor.widgets.line_pane import LinePane
from monitor.widgets.pane_title import set_title

TILE_WIDTH = 16
MAX_TILES = 20
LABEL_WIDTH = 4


class _Labels(LinePane):
    """Layer numbers beside the rows."""

    heat: Heat | None = None
    chosen: str | None = None

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        if self.heat is None:
            return ()
        labels, tall = self.heat.labels, self.heat.tall
        layers = len(labels)
        marked = labels.index(self.chosen) if self.chosen in labels else None
        rows = rows_for(layers, height - 1, tall)
        lines: list[Line] = []
        shown: str | None = None
        for row in range(rows):
            label = labels[shown_layer(row, layers, height - 1, tall, marked)]
            text = "" if label == shown else clipped(label, width - 1)
            chosen = label == self.chosen and label != shown
            shown = label
            if chosen:
                text = f"{glyphs.SELECTED}{text:>{width - 2}}"
            lines.append(((f"{text:>{width - 1}} ", "accent bold" if chosen else "muted"),))
        return lines


class _Tile(StepPane):
    """Some columns of the heatmap."""

    def __init__(self, start: int) -> None:
        super().__init__(classes="heat-tile")
        self.heat: Heat | None = None
        self.start = start
        self.cursor: int | None = None
        """Column of the cursor, where it is one of this tile's."""

    def on_click(self, event: Click) -> None:
        at = event.get_content_offset(self)
        step = self.step_of(at.x) if at is not None else None
        if at is not None and step is not None:
            self.post_message(HeatmapPane.Clicked(step, at.y, event.chain == 2))

    def step_of(self, column: int) -> int | None:
        at = self.start + column
        if self.heat is None or not 0 <= at < len(self.heat.steps):
            return None
        return self.heat.steps[at][1]

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        if self.heat is None or height < 2:
            return ()
        columns = self.heat.levels.shape[1]
        stop = min(self.start + width, columns)
        if stop <= self.start:
            return ()
        return draw_tile(self.heat, self.start, stop, height, self.plain, self.cursor)


class _Legend(LinePane):
    """The colour ramp, or why there is nothing to see."""

    heat: Heat | None = None
    unit = ""
    note = ""
    indent = LABEL_WIDTH

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        if self.heat is None:
            return (((self.note, "muted"),),)
        return (((" " * self.indent, "fg"), *legend(self.heat, self.unit, self.plain)),)


class HeatmapPane(Vertical, can_focus=False):
    """A metric over layers and time; ``label_width`` cells are for the names of the rows."""

    class Clicked(Message):
        """A cell of the heatmap was clicked: its last step, and its line from the top;
        ``twice``: a double click."""

        def __init__(self, step: int, line: int, twice: bool = False) -> None:
            super().__init__()
            self.step, self.line, self.twice = step, line, twice

    def __init__(self, *, id: str | None = None, label_width: int = LABEL_WIDTH) -> None:
        super().__init__(id=id)
        self._label_width = label_width
        self._fitted = 0
        self._body = Horizontal(classes="heat-body")
        self._labels = _Labels(classes="heat-labels")
        self._labels.styles.width = label_width
        self._tiles: list[_Tile] = []
        self._legend = _Legend(classes="heat-legend")
        self._legend.indent = label_width

    def compose(self) -> ComposeResult:
        with self._body:
            yield self._labels
            yield from self._new_tiles(self.app.size.width)
        yield self._legend

    @property
    def columns(self) -> int:
        """Columns there is room for."""
        return max(1, min(self.content_size.width - self._label_width, TILE_WIDTH * MAX_TILES))

    @property
    def text(self) -> str:
        """The characters on screen, for tests."""
        return "\n".join(pane.text for pane in self.query(LinePane) if pane.display)

    def show(
        self,
        title: str,
        heat: Heat | None,
        unit: str,
        note: str = "",
        chosen: str | None = None,
        cursor: int | None = None,
    ) -> None:
        """Draw a heatmap, or the note that says why there is none; ``chosen`` is a row's label,
        ``cursor`` a step."""
        set_title(self, title)
        self._fit_tiles()
        labels, key = self._labels, self._legend
        labels.chosen = chosen
        labels.heat, key.heat, key.unit, key.note = heat, heat, unit, note
        if heat is not None:
            # The legend follows the last row; the rest stays empty.
            room = max(1, self.content_size.height - 1)
            rows = rows_for(len(heat.labels), room - 1, heat.tall) + 1
            self._body.styles.height = min(rows, room)
        labels.redraw_of(heat, chosen)
        key.redraw_of(heat, unit, note)
        column = heat.column(cursor) if heat is not None else None
        for tile in self._tiles:
            tile.heat = heat
            here = column is not None and column // TILE_WIDTH * TILE_WIDTH == tile.start
            tile.cursor = column if here else None
            tile.redraw_of(heat, tile.cursor)

    def on_resize(self) -> None:
        self._fit_tiles()

    def _new_tiles(self, columns: int) -> list[_Tile]:
        """Those that so many columns need beyond the ones that are there."""
        wanted = min(-(-columns // TILE_WIDTH), MAX_TILES)
        found = [_Tile(index * TILE_WIDTH) for index in range(len(self._tiles), wanted)]
        self._tiles += found
        return found

    def _fit_tiles(self) -> None:
        """As many tiles as there are columns. Also before drawing: a size may be told before the
        tiles are there."""
        columns = self.columns
        if columns == self._fitted or not self.is_mounted:
            return
        self._fitted = columns
        self._body.mount(*self._new_tiles(columns))
        for index, tile in enumerate(self._tiles):
            width = min(TILE_WIDTH, columns - index * TILE_WIDTH)
            tile.display = width > 0
            tile.styles.width = max(width, 1)
