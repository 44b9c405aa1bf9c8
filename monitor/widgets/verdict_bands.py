"""The verdict over time: a lane of words, and a band per category shaded by its probability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from textual.app import ComposeResult
from textual.containers import Vertical

from monitor import glyphs
from monitor.charts.heatmap import Heat, heat
from monitor.charts.heatmap_pane import HeatmapPane
from monitor.charts.line import Line, Piece, fitted
from monitor.charts.raster import cut, value_at
from monitor.charts.scale import Scale
from monitor.envelope import Curve
from monitor.formatting import clipped, percent, spoken
from monitor.run_model import StepMark
from monitor.step_window import Span
from monitor.verdict_history import WORDS, Bands
from monitor.widgets.line_pane import LinePane
from monitor.widgets.pane_title import set_title

LABEL_WIDTH = 21
_NAME = LABEL_WIDTH - 8
_SIGNS = {
    "insufficient": (glyphs.WAITING, "not enough evidence yet", "accent"),
    "healthy": (glyphs.HEALTHY, "healthy", "ok bold"),
    "faulty": (glyphs.FAULTY, "FAULTY", "bad bold"),
}
_PROBABILITY = Scale(0.0, 1.0, False, ())


def lane(verdict: Curve, steps: Sequence[Span], width: int) -> Line:
    """One line: every stretch of one verdict as its sign, its word and a rule to its end.

    ``steps`` are the first and last step of each column; of a column's verdicts the worst counts.
    """
    numbers = []
    for first, last in steps:
        inside = (verdict.last >= first) & (verdict.first <= last)
        held = verdict.high[inside]
        numbers.append(int(np.nanmax(held)) if np.isfinite(held).any() else 0)
    pieces: list[Piece] = []
    start = 0
    for at in range(1, len(numbers) + 1):
        if at < len(numbers) and numbers[at] == numbers[start]:
            continue
        sign, word, role = _SIGNS[WORDS[numbers[start]]]
        room = at - start
        text = f"{sign} {word} " if len(word) + 3 <= room else sign
        pieces.append((text[:room], role))
        pieces.append((glyphs.HORIZONTAL * (room - len(text[:room])), role.split()[0]))
        start = at
    return fitted(pieces, width)


def band_heat(
    bands: Bands,
    span: Span,
    columns: int,
    rows: int,
    marks: Sequence[StepMark],
    cursor: int | None,
    whole: bool = False,
) -> tuple[Heat, tuple[str, ...]]:
    """The bands as a heatmap of at most ``rows`` rows, and the names that fit its labels;
    ``whole``: over the whole width."""
    curves = [cut(curve, span) for curve in (bands.fault, *bands.categories)[:rows]]
    names = []
    for curve in curves:
        end = int(curve.last[-1]) if len(curve) else 0
        value = value_at(curve, cursor if cursor is not None else end)
        name = "any fault" if curve.label == "fault" else spoken(curve.label)
        names.append(f"{clipped(name, _NAME):<{_NAME}} {percent(value):>6}")
    labelled = [
        Curve(name, c.first, c.last, c.low, c.high, c.latest, np.zeros_like(c.marks))
        for name, c in zip(names, curves, strict=True)
    ]
    found = heat(
        labelled,
        "share",
        columns,
        marks,
        scale=_PROBABILITY,
        tall=2,
        whole=whole,
    )
    return found, tuple(names)


class _Lane(LinePane):
    """The verdict in words."""

    line: Line = ()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        return (fitted(self.line, width),)


class VerdictBands(Vertical, can_focus=False):
    """Verdict and category probabilities per sampled step."""

    def compose(self) -> ComposeResult:
        yield _Lane()
        yield HeatmapPane(label_width=LABEL_WIDTH)

    @property
    def text(self) -> str:
        """The characters on screen, for tests."""
        return f"{self.query_one(_Lane).text}\n{self.query_one(HeatmapPane).text}"

    def show(
        self,
        bands: Bands | None,
        span: Span,
        marks: Sequence[StepMark],
        cursor: int | None,
        whole: bool = False,
    ) -> None:
        """Draw the history of the verdict, ``whole``: over the whole width; None before the
        first."""
        set_title(self, "Verdict over time · probability of each category")
        head, heatmap = self.query_one(_Lane), self.query_one(HeatmapPane)
        if bands is None or not len(cut(bands.fault, span)):
            head.line = (("no verdict in these steps", "muted"),)
            heatmap.show("", None, "")
            head.redraw()
            return
        rows = max(1, heatmap.content_size.height - 2)
        found, _ = band_heat(bands, span, heatmap.columns, rows, marks, cursor, whole)
        label = f"{'verdict':<{LABEL_WIDTH - 1}} "
        words = lane(bands.verdict, found.steps, heatmap.columns)
        head.line = ((label, "muted"), *words)
        head.redraw()
        heatmap.show("", found, "", cursor=cursor)

    @staticmethod
    def lines_wanted(bands: Bands | None, room: int) -> int:
        """Lines this pane makes use of, its title included, of ``room``."""
        rows = 1 + len(bands.categories) if bands else 1
        tall = 2 if 4 + 2 * rows <= room and room >= 14 else 1
        return min(4 + rows * tall, room)
