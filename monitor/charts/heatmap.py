"""A layer x step heatmap as lines of text.

Columns are buckets of samples, filled from left to right. When there are more buckets than
columns, two, four, ... share a column; when there are fewer, each takes two, four or eight: a
column once drawn changes only when its own buckets do, so that a screen sent over a slow link needs
only its newest part again. What does not grow any more is spread over the whole width.

:func:`heat` turns curves into levels, :func:`draw_tile` levels into lines; both are pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from msgspec import Struct

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
    cursor: int | None = None
    """Column of the cursor."""
    steps: tuple[tuple[int, int], ...] = ()
    """First and last step of each filled column."""


def heat(
    curves: Sequence[Curve],
    form: Form,
    columns: int,
    marks: Sequence[StepMark] = (),
    *,
    scale: Scale | None = None,
    cursor: int | None = None,
    tall: int = 3,
    whole: bool = False,
) -> Heat:
    """Levels of a metric over layers and time. All curves share their buckets.

    Of a column's values the one that matters is shown: the largest magnitude of a signed metric,
    the one furthest from the metric's median where any real number may come, else the largest.
    ``scale`` overrides the one made for the values; ``cursor`` is a step. ``whole``: nothing more
    will come, so that the buckets take the whole width.
    """
    buckets = len(curves[0]) if curves else 0
    begins, ends = _whole_fit(buckets, columns) if whole else _fit(buckets, columns)
    scale = scale or _scale(curves, form)
    levels = np.full((len(curves), columns), EMPTY, np.int64)
    for row, curve in enumerate(curves):
        if not buckets:
            break
        levels[row, : len(begins)] = _levels(curve, form, begins, ends, scale)
    first = curves[0].first if curves else np.zeros(0, np.int64)
    last = curves[0].last if curves else np.zeros(0, np.int64)

    def column(step: int) -> int:
        bucket = min(int(np.searchsorted(last, step)), buckets - 1)
        return int(np.searchsorted(ends, bucket, side="right"))

    span = (int(first[0]), int(last[-1])) if buckets else (0, 0)
    seen = [mark for mark in marks if buckets and span[0] <= mark.step <= span[1]]
    return Heat(
        labels=tuple(curve.label for curve in curves),
        levels=levels,
        marks=tuple((column(mark.step), mark) for mark in seen),
        scale=scale,
        two_sided=form == "signed",
        span=span,
        tall=tall,
        cursor=column(cursor) if cursor is not None and span[0] <= cursor <= span[1] else None,
        steps=tuple(
            (int(first[begin]), int(last[end - 1])) for begin, end in zip(begins, ends, strict=True)
        ),
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
    curve: Curve, form: Form, begins: IntArray, ends: IntArray, scale: Scale | None
) -> IntArray:
    """Level of each column, shape (columns,), of the buckets from ``begins`` to before ``ends``."""
    columns, share = len(begins), int((ends - begins).max())
    at = begins[:, None] + np.arange(share)
    beyond = at >= ends[:, None]
    at = np.minimum(at, len(curve) - 1)
    values = np.where(beyond, np.nan, _telling(curve, form)[at])
    seen = np.bitwise_or.reduce(np.where(beyond, 0, curve.marks[at]), axis=1)
    size = np.abs(values - _centre(curve, form))
    finite = np.isfinite(size)
    furthest = np.where(finite, size, -1.0).argmax(axis=1)
    telling = values[np.arange(columns), furthest]
    levels = np.where(seen & NAN, NOT_A_NUMBER, EMPTY).astype(np.int64)
    shown = finite.any(axis=1)
    if scale is not None:
        position = scale.position(telling[shown]) * LEVELS
        levels[shown] = np.minimum(position.astype(np.int64), LEVELS - 1)
    levels[(seen & MINUS_INFINITY) > 0] = MINUS
    levels[(seen & PLUS_INFINITY) > 0] = PLUS
    return levels


def _centre(curve: Curve, form: Form) -> float:
    if form != "statistic" or not np.isfinite(curve.high).any():
        return 0.0
    return float(np.nanmedian(curve.high))


def _telling(curve: Curve, form: Form) -> FloatArray:
    """Of a bucket's lowest and highest value, the one worth showing."""
    if form not in ("signed", "statistic"):
        return curve.high
    centre = _centre(curve, form)
    low_further = np.abs(curve.low - centre) > np.abs(curve.high - centre)
    return np.where(low_further, curve.low, curve.high)


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


def draw_tile(found: Heat, start: int, stop: int, height: int, plain: bool) -> tuple[Line, ...]:
    """Columns ``start`` .. ``stop`` in ``height`` lines; the last is the axis with its marks.

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
    lines.append(_axis(found, start, stop))
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


def _axis(found: Heat, start: int, stop: int) -> Line:
    characters, roles = [glyphs.HORIZONTAL] * (stop - start), ["faint"] * (stop - start)
    for column, mark in found.marks:
        if start <= column < stop:
            characters[column - start] = mark_glyph(mark.kind)
            roles[column - start] = mark_role(mark)
    if found.cursor is not None and start <= found.cursor < stop:
        if characters[found.cursor - start] == glyphs.HORIZONTAL:
            characters[found.cursor - start] = glyphs.CURSOR_FOOT
        roles[found.cursor - start] = "accent bold"
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
