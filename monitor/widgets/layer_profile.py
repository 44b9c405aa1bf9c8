"""The values of all layers at one step, beside the rows of a heatmap."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monitor import glyphs
from monitor.charts.heatmap import Heat, rows_for, shown_layer
from monitor.charts.line import Line, fitted
from monitor.formatting import number
from monitor.widgets.line_pane import LinePane
from monitor.widgets.pane_title import set_title

VALUE_WIDTH = 9


def _bar(position: float, room: int, two_sided: bool) -> str:
    """From the left edge to a position in [0, 1]; of a two-sided scale from its middle, its 0."""
    at, start = round(position * room), room // 2 if two_sided else 0
    return " " * min(at, start) + glyphs.BAR_FULL * abs(at - start)


class LayerProfile(LinePane):
    """A number and a bar per layer, in line with the heatmap's rows."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._heat: Heat | None = None
        self._values: tuple[float, ...] = ()
        self._chosen: int | None = None

    def show(
        self, title: str, heat: Heat | None, values: Sequence[float], chosen: int | None
    ) -> None:
        """Draw the values of the heatmap's rows."""
        set_title(self, title)
        self._heat, self._values, self._chosen = heat, tuple(values), chosen
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        heat = self._heat
        if heat is None or not self._values:
            return ()
        layers = len(self._values)
        # The heatmap's own legend takes its last line, its axis the one before.
        body = height - 2
        lines: list[Line] = []
        shown = -1
        for row in range(rows_for(layers, body, heat.tall)):
            layer = shown_layer(row, layers, body, heat.tall, self._chosen)
            lines.append(() if layer == shown else self._line(layer, width))
            shown = layer
        return tuple(lines)

    def _line(self, layer: int, width: int) -> Line:
        value = self._values[layer]
        chosen = layer == self._chosen
        text = "–" if math.isnan(value) else number(value)
        room = max(0, width - VALUE_WIDTH - 2)
        bar = ""
        scale = self._heat.scale if self._heat else None
        if self._heat is not None and scale is not None and math.isfinite(value):
            bar = _bar(float(scale.position(value)), room, self._heat.two_sided)
        role = "bad bold" if math.isinf(value) else "accent bold" if chosen else "fg"
        return fitted([(f"{text:>{VALUE_WIDTH}} ", role), (bar, "accent" if chosen else "faint")],
                      width)  # fmt: skip
