"""The widgets of the heatmap: layer labels, tiles of columns, legend.

A refreshed line is resent from its widget's left edge on; with a widget for every
:data:`TILE_WIDTH` columns a new step resends one tile, not the whole width.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from monitor.charts.heatmap import Heat, draw_tile, layer_of_row, legend, rows_for
from monitor.charts.line import Line
from monitor.widgets.line_pane import LinePane

TILE_WIDTH = 16
MAX_TILES = 20
LABEL_WIDTH = 4


class _Labels(LinePane):
    """Layer numbers beside the rows."""

    heat: Heat | None = None

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        if self.heat is None:
            return ()
        layers = len(self.heat.labels)
        rows = rows_for(layers, height - 1)
        lines: list[Line] = []
        shown = ""
        for row in range(rows):
            label = self.heat.labels[layer_of_row(row, layers, height - 1)]
            text = "" if label == shown else label
            shown = label
            lines.append(((f"{text:>{width - 1}} ", "muted"),))
        return lines


class _Tile(LinePane):
    """Some columns of the heatmap."""

    heat: Heat | None = None
    start = 0

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        if self.heat is None or height < 2:
            return ()
        columns = self.heat.levels.shape[1]
        stop = min(self.start + width, columns)
        if stop <= self.start:
            return ()
        return draw_tile(self.heat, self.start, stop, height, self.monitor.ascii_only)


class _Legend(LinePane):
    """The colour ramp, or why there is nothing to see."""

    heat: Heat | None = None
    unit = ""
    note = ""

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        if self.heat is None:
            return (((self.note, "muted"),),)
        return (
            ((" " * LABEL_WIDTH, "fg"), *legend(self.heat, self.unit, self.monitor.ascii_only)),
        )


class HeatmapPane(Vertical, can_focus=False):
    """A metric over layers and time."""

    def compose(self) -> ComposeResult:
        with Horizontal(id="heat-body"):
            yield _Labels(id="heat-labels")
            for _ in range(MAX_TILES):
                yield _Tile(classes="heat-tile")
        yield _Legend(id="heat-legend")

    @property
    def columns(self) -> int:
        """Columns there is room for."""
        return max(1, min(self.content_size.width - LABEL_WIDTH, TILE_WIDTH * MAX_TILES))

    @property
    def text(self) -> str:
        """The characters on screen, for tests."""
        return "\n".join(pane.text for pane in self.query(LinePane) if pane.display)

    def show(self, title: str, heat: Heat | None, unit: str, note: str = "") -> None:
        """Draw a heatmap, or the note that says why there is none."""
        self.border_title = title
        labels, key = self.query_one(_Labels), self.query_one(_Legend)
        labels.heat, key.heat, key.unit, key.note = heat, heat, unit, note
        labels.redraw()
        key.redraw()
        for index, tile in enumerate(self.query(_Tile)):
            tile.heat, tile.start = heat, index * TILE_WIDTH
            tile.redraw()

    def on_resize(self) -> None:
        columns = self.columns
        for index, tile in enumerate(self.query(_Tile)):
            width = min(TILE_WIDTH, columns - index * TILE_WIDTH)
            tile.display = width > 0
            tile.styles.width = max(width, 1)
