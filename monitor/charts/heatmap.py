"""A layer x step heatmap as lines of text.

Columns are buckets of samples, filled from left to right. When there are more buckets than
columns, two, four, ... share a column; when there are fewer, each takes two, four or eight: a
column once drawn changes only when its own buckets do, so that a screen sent over a slow link needs
only its newest part again. What does not grow any more is spread over the whole width.

:func:`heat` turns curves into levels, :func:`draw_tile` levels into lines; both are pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from operator import itemgetter

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from monitor import glyphs
from monitor.charts.line import Line, Piece, from_cells
from monitor.charts.line_chart import mark_glyph, mark_role
from monitor.charts.scale import LOG_FLOOR, Scale, scale_for
from monitor.envelope import MINUS_INFINITY, NAN, PLUS_INFINITY, Curve, FloatArray
from monitor.formatting import number
from monitor.run_model import StepMark
from probe.schema import Form

LEVELS = 12
WIDEST = 8
"""Columns that one bucket takes at most."""
EMPTY, NOT_A_NUMBER, PLUS, MINUS = -1, -2, -3, -4
"""Codes below 0: no data in this column, NaN only, +inf and -inf seen."""

IntArray = npt.NDArray[np.int64]
_ASCII_RAMP = " .,:;-=+*%#@"


class Heat(Struct, frozen=True, eq=False):
    """``levels``: (layers, columns), 0 .. LEVELS - 1 or a code below 0; ``marks`` by column.

    It equals itself alone: comparing the levels would take as long as drawing them.
    """

    labels: tuple[str, ...]
    levels: IntArray
    marks: tuple[tuple[int, StepMark], ...]
    scale: Scale | None
    two_sided: bool
    span: tuple[int, int]
    tall: int = 3
    """Lines a row takes at most."""
    steps: tuple[tuple[int, int], ...] = ()
    """First and last step of each filled column."""

    def column(self, step: int | None) -> int | None:
        """The first column that holds a step; None outside."""
        if step is None or not self.steps or not self.span[0] <= step <= self.span[1]:
            return None
        return bisect_left(self.steps, step, key=itemgetter(1))


def heat(
    curves: Sequence[Curve],
    form: Form,
    columns: int,
    marks: Sequence[StepMark] = (),
    *,
    scale: Scale | None = None,
    tall: int = 3,
    whole: bool = False,
) -> Heat:
    """Levels of a metric over layers and time. All curves share their buckets.

    Of a column's values the one that matters is shown: the largest magnitude of a signed metric,
    the one furthest from the metric's median where any real number may come, else the largest.
    ``scale`` overrides the one made for the values. ``whole``: nothing more will come, so that the
    buckets take the whole width.
    """
    buckets = len(curves[0]) if curves else 0
    begins, ends = _whole_fit(buckets, columns) if whole else _fit(buckets, columns)
    scale = scale or _scale(curves, form)
    levels = np.full((len(curves), columns), EMPTY, np.int64)
    steps: list[tuple[int, int]] = []
    if buckets:
        levels[:, : len(begins)] = _levels(curves, form, begins, ends, scale)
        first, last = curves[0].first[begins], curves[0].last[ends - 1]
        steps = list(zip(first.tolist(), last.tolist(), strict=True))
    found = Heat(
        labels=tuple(curve.label for curve in curves),
        levels=levels,
        marks=(),
        scale=scale,
        two_sided=form == "signed",
        span=(steps[0][0], steps[-1][1]) if steps else (0, 0),
        tall=tall,
        steps=tuple(steps),
    )
    columns_of_marks = ((found.column(mark.step), mark) for mark in marks)
    return replace(
        found, marks=tuple((at, mark) for at, mark in columns_of_marks if at is not None)
    )


def _fit(buckets: int, columns: int) -> tuple[IntArray, IntArray]:
    """First bucket of each column, and the one after its last: buckets per column, or columns per
    bucket, are a power of two."""
    share = stretch = 1
    while buckets > share * columns:
        share *= 2
    while buckets and stretch < WIDEST and 2 * stretch * buckets <= columns:
        stretch *= 2
    begins = np.repeat(np.arange(0, buckets, share), stretch)
    return begins, np.minimum(begins + share, buckets)


def _whole_fit(buckets: int, columns: int) -> tuple[IntArray, IntArray]:
    """The same with every column filled, as evenly as can be."""
    if not buckets:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    at = np.arange(columns)
    begins = at * buckets // columns
    return begins, np.maximum((at + 1) * buckets // columns, begins + 1)


def _levels(
    curves: Sequence[Curve], form: Form, begins: IntArray, ends: IntArray, scale: Scale | None
) -> IntArray:
    """Levels of the curves, shape (curves, columns), each column of the buckets from ``begins`` to
    before ``ends``."""
    low, high = np.array([c.low for c in curves]), np.array([c.high for c in curves])
    marks = np.array([curve.marks for curve in curves])
    centre = _centres(high) if form == "statistic" else np.zeros((len(curves), 1))
    telling = high  # of a bucket's lowest and highest value, the one worth showing
    if form in ("signed", "statistic"):
        telling = np.where(np.abs(low - centre) > np.abs(high - centre), low, high)
    at = begins[:, None] + np.arange((ends - begins).max())
    beyond = at >= ends[:, None]
    at = np.minimum(at, high.shape[1] - 1)
    values = np.where(beyond, np.nan, telling[:, at])
    seen = np.bitwise_or.reduce(np.where(beyond, 0, marks[:, at]), axis=2)
    size = np.abs(values - centre[:, :, None])
    finite = np.isfinite(size)
    furthest = np.where(finite, size, -1.0).argmax(axis=2)
    telling = np.take_along_axis(values, furthest[:, :, None], axis=2)[:, :, 0]
    levels = np.where(seen & NAN, NOT_A_NUMBER, EMPTY).astype(np.int64)
    shown = finite.any(axis=2)
    if scale is not None:
        position = scale.position(telling[shown]) * LEVELS
        levels[shown] = np.minimum(position.astype(np.int64), LEVELS - 1)
    levels[(seen & MINUS_INFINITY) > 0] = MINUS
    levels[(seen & PLUS_INFINITY) > 0] = PLUS
    return levels


def _centres(high: FloatArray) -> npt.NDArray[np.float64]:
    """The median of every row's finite values, 0 where it has none, shape (rows, 1)."""
    count = np.isfinite(high).sum(axis=1, keepdims=True)
    ordered = np.sort(high, axis=1)  # NaN last
    middle = [np.maximum(count - 1, 0) // 2, np.minimum(count // 2, high.shape[1] - 1)]
    found = np.take_along_axis(ordered, np.hstack(middle), axis=1).mean(axis=1, keepdims=True)
    return np.where(count > 0, found, 0.0)


def _scale(curves: Sequence[Curve], form: Form) -> Scale | None:
    found = scale_for(curves, log=form == "residual", ticks=3)
    if found is None:
        return None
    if form == "residual":
        # From rounding to "completely wrong", so that healthy noise stays dark.
        return Scale(min(LOG_FLOOR * 10, found.low), max(1.0, found.high), True, ())
    if form == "signed":
        edge = max(abs(found.low), abs(found.high))
        return Scale(-edge, edge, False, ())
    if form == "share":
        return Scale(min(0.0, found.low), found.high, False, ())
    if form == "positive" and found.low >= 0 and found.high > 0:
        wide = scale_for(curves, log=True)
        if wide is not None and wide.high / wide.low > 1000:
            return wide
    return found


def rows_for(layers: int, height: int, tall: int = 3) -> int:
    """Lines the layers take in a height: ``tall`` each at most, half blocks where they are many."""
    if layers <= height:
        return layers * min(tall, height // max(layers, 1))
    return min(height, -(-layers // 2))


def layer_of_row(row: int, layers: int, height: int, tall: int = 3) -> int:
    """The first layer that line ``row`` shows."""
    rows = rows_for(layers, height, tall)
    return row * layers // max(rows, 1)


def shown_layer(row: int, layers: int, height: int, tall: int, chosen: int | None) -> int:
    """The layer whose name and value stand at line ``row``: the chosen one if it is there."""
    first = layer_of_row(row, layers, height, tall)
    end = layer_of_row(row + 1, layers, height, tall)
    return chosen if chosen is not None and first <= chosen < end else first


def draw_tile(
    found: Heat, start: int, stop: int, height: int, plain: bool, cursor: int | None = None
) -> tuple[Line, ...]:
    """Columns ``start`` .. ``stop`` in ``height`` lines; the last is the axis with its marks, and
    that of the cursor's column.

    ``plain``: levels by ASCII characters of growing weight instead of colours.
    """
    levels = found.levels[:, start:stop]
    layers, rows = len(levels), rows_for(len(levels), height - 1, found.tall)
    lines = []
    for row in range(rows):
        if layers <= height - 1:
            layer = layer_of_row(row, layers, height - 1, found.tall)
            lines.append(_row(levels[layer], found.two_sided, plain))
        elif plain:
            first, last = row * layers // rows, (row + 1) * layers // rows
            lines.append(_row(_worst(levels[first:last]), found.two_sided, plain))
        else:
            edges = [half * layers // (2 * rows) for half in (2 * row, 2 * row + 1, 2 * row + 2)]
            upper = _worst(levels[edges[0] : max(edges[1], edges[0] + 1)])
            lower = _worst(levels[edges[1] : max(edges[2], edges[1] + 1)])
            lines.append(_half_row(upper, lower, found.two_sided))
    lines.append(_axis(found, start, stop, cursor))
    return tuple(lines)


def _worst(levels: IntArray) -> IntArray:
    """One level per column: infinity first, then the largest, then NaN."""
    infinite = levels <= PLUS
    return np.where(infinite.any(axis=0), PLUS, levels.max(axis=0))


def _colour(level: int, two_sided: bool) -> str:
    if level >= 0:
        return f"{'d' if two_sided else 'h'}{level}"
    return "bad" if level in (PLUS, MINUS) else "hollow"


def _row(levels: IntArray, two_sided: bool, plain: bool) -> Line:
    return _joined([_cell(level, two_sided, plain) for level in levels.tolist()])


@cache
def _cell(level: int, two_sided: bool, plain: bool) -> Piece:
    if level == EMPTY:
        return " ", "fg"
    if level == NOT_A_NUMBER:
        return glyphs.BEAD, "faint"
    if level < 0:
        return (
            glyphs.PLUS_INFINITY_MARK if level == PLUS else glyphs.MINUS_INFINITY_MARK,
            "bad bold",
        )
    if plain:
        return _ASCII_RAMP[level * len(_ASCII_RAMP) // LEVELS], "fg"
    return " ", f"fg on {_colour(level, two_sided)}"


def _half_row(upper: IntArray, lower: IntArray, two_sided: bool) -> Line:
    pairs = zip(upper.tolist(), lower.tolist(), strict=True)
    return _joined([_half_cell(above, below, two_sided) for above, below in pairs])


@cache
def _half_cell(above: int, below: int, two_sided: bool) -> Piece:
    if above == EMPTY and below == EMPTY:
        return " ", "fg"
    return "▀", f"{_colour(above, two_sided)} on {_colour(below, two_sided)}"


def _joined(pieces: list[Piece]) -> Line:
    return from_cells([text for text, _ in pieces], [role for _, role in pieces])


def _axis(found: Heat, start: int, stop: int, cursor: int | None) -> Line:
    characters, roles = [glyphs.HORIZONTAL] * (stop - start), ["faint"] * (stop - start)
    for column, mark in found.marks:
        if start <= column < stop:
            characters[column - start] = mark_glyph(mark.kind)
            roles[column - start] = mark_role(mark)
    if cursor is not None and start <= cursor < stop:
        if characters[cursor - start] == glyphs.HORIZONTAL:
            characters[cursor - start] = glyphs.CURSOR_FOOT
        roles[cursor - start] = "accent bold"
    return from_cells(characters, roles)


def legend(found: Heat, unit: str, plain: bool) -> Line:
    """The colour ramp with its ends in numbers, and what the other signs mean."""
    if found.scale is None:
        return (("no value yet", "muted"),)
    pieces: list[Piece] = [(f"{number(found.scale.low)} ", "muted")]
    for level in range(LEVELS):
        if plain:
            pieces.append((_ASCII_RAMP[level * len(_ASCII_RAMP) // LEVELS], "fg"))
        else:
            pieces.append((" ", f"fg on {_colour(level, found.two_sided)}"))
    pieces.append((f" {number(found.scale.high)}{' log' if found.scale.log else ''}", "muted"))
    if unit:
        pieces.append((f" {unit}", "muted"))
    pieces.append((f"   steps {found.span[0]}–{found.span[1]}", "muted"))
    if (found.levels == NOT_A_NUMBER).any():
        pieces.append((f"   {glyphs.BEAD} not measured or NaN", "muted"))
    if (found.levels <= PLUS).any():
        pieces.append((f"   {glyphs.PLUS_INFINITY_MARK} infinite", "bad"))
    return tuple(pieces)
