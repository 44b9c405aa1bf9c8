"""The heads of all layers at one step, beside the rows of a heatmap and in its colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from monitor.charts.heatmap import EMPTY, LEVELS, MINUS, NOT_A_NUMBER, PLUS, Heat, draw_tile
from monitor.charts.line import Line
from monitor.widgets.line_pane import LinePane
from monitor.widgets.pane_title import set_title

WIDEST_CELL = 3
WIDEST = 48
"""Columns the heads take at most; where they are more, neighbours share one."""
_BORDER = 2


def cell_width(heads: int) -> int:
    """Columns of one head."""
    return max(1, min(WIDEST_CELL, WIDEST // max(heads, 1)))


def pane_width(heads: int) -> int:
    """Columns of the pane, its border included."""
    return max(12, min(WIDEST, heads * cell_width(heads)) + _BORDER)


def head_heat(values: Sequence[Sequence[float]], layers: Heat) -> Heat:
    """Layer x head: ``values`` by layer and head on the scale and in the rows of ``layers``.

    Layers with fewer heads than others stay empty at the end; where more than :data:`WIDEST`
    heads share columns, the largest value is shown.
    """
    heads = max((len(row) for row in values), default=0)
    table = np.full((len(values), heads), np.nan)
    levels = np.full((len(values), heads), EMPTY, np.int64)
    for at, row in enumerate(values):
        table[at, : len(row)] = row
        levels[at, : len(row)] = NOT_A_NUMBER
    levels[table == np.inf], levels[table == -np.inf] = PLUS, MINUS
    known = np.isfinite(table)
    if layers.scale is not None:
        position = layers.scale.position(table[known]) * LEVELS
        levels[known] = np.minimum(position.astype(np.int64), LEVELS - 1)
    return replace(layers, levels=_spread(levels, heads), marks=(), steps=())


def _spread(levels: npt.NDArray[np.int64], heads: int) -> npt.NDArray[np.int64]:
    if heads <= WIDEST:
        return np.repeat(levels, cell_width(heads), axis=1)
    starts = np.arange(WIDEST) * heads // WIDEST
    return np.maximum.reduceat(levels, starts, axis=1)


def axis(heads: int) -> str:
    """Numbers of the heads under their columns, as many as there is room for."""
    text = ""
    columns = min(WIDEST, heads * cell_width(heads))
    for head in range(heads):
        at = head * columns // heads
        if at >= len(text) + bool(text):
            text += " " * (at - len(text)) + str(head)
    return text[:columns]


class HeadMap(LinePane):
    """One cell per layer and head."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._heat: Heat | None = None
        self._heads = 0

    def show(self, values: Sequence[Sequence[float]], layers: Heat | None) -> None:
        """Draw the heads beside the layers' heatmap; none, and the pane is hidden."""
        self._heads = max((len(row) for row in values), default=0)
        self.display = layers is not None and self._heads > 0
        if layers is None or not self.display:
            return
        set_title(self, "heads")
        self.styles.width = pane_width(self._heads)
        self._heat = head_heat(values, layers)
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        heat = self._heat
        if heat is None or height < 3:
            return ()
        # As the heatmap: its legend takes the last line, its axis the one before.
        rows = draw_tile(heat, 0, heat.levels.shape[1], height - 1, self.plain)[:-1]
        return (*rows, ((axis(self._heads), "muted"),))
