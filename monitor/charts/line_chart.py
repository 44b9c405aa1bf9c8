"""A line chart as lines of text: title, plot, axis with marks, step labels.

:func:`draw` is pure: a :class:`ChartData` of arrays in, lines of cells out. Nothing of it knows the
monitor's screen; any widget that shows lines can use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from monitor import glyphs
from monitor.charts import raster
from monitor.charts.duration import duration
from monitor.charts.line import Line, Piece, fitted, from_cells, from_grid, spread, width_of
from monitor.charts.plotted import Plotted, plotted
from monitor.charts.scale import Scale, round_steps, tick_labels
from monitor.charts.step_axis import dot_column, dot_columns
from monitor.envelope import MINUS_INFINITY, NAN, PLUS_INFINITY, Curve
from monitor.formatting import clipped, clipped_key, number
from monitor.run_model import StepMark
from monitor.step_window import Span

LABEL_WIDTH = 7
END_WIDTH = 4
SERIES_COLOURS = 8
_APART = 14
"""Cells between two labels of the horizontal axis, at least."""
_LABELLED = 6
"""Lower charts have no room for the step labels."""
_NOTED = 56
"""Narrower charts have no room for the note."""


class ChartData(Struct, frozen=True):
    """All a chart shows. ``span`` is the steps from left to right edge."""

    title: str
    curves: tuple[Curve, ...]
    span: Span
    unit: str = ""
    log: bool = False
    marks: tuple[StepMark, ...] = ()
    absent: str = ""
    """Why there is nothing to see, in the probe's words."""
    contract: bool = False
    selected: bool = False
    flagged: bool = False
    """Speaks for the diagnosis."""
    raw: tuple[Curve, ...] = ()
    """Drawn faint behind the curves: what they were before smoothing."""
    cursor: int | None = None
    """A step whose values are told."""
    note: str = ""
    """Short, in the title: how the curves were treated."""
    healthy: tuple[float, float] | None = None
    """Lowest and highest healthy value, drawn as a band; an open end is infinite."""
    step_of: Callable[[float], float] | None = None
    """The axis is in milliseconds; this gives the step of a place on it."""

    def looks_like(self, other: ChartData) -> bool:
        """The chart drawn would be the same. Curves count as the same only where they are the same
        objects: comparing their values would take as long as drawing them."""
        own, others = (*self.raw, *self.curves), (*other.raw, *other.curves)
        if len(self.raw) != len(other.raw) or len(own) != len(others):
            return False
        if any(one is not another for one, another in zip(own, others, strict=True)):
            return False
        return replace(self, raw=(), curves=()) == replace(other, raw=(), curves=())


def series_role(index: int, total: int) -> str:
    """Colour of a curve: the first layer's to the last layer's, spread over the ramp."""
    if total <= 1:
        return "accent"
    return f"s{round(index * (SERIES_COLOURS - 1) / (total - 1))}"


def draw(
    data: ChartData, width: int, height: int, ascii_only: bool = False, plain: bool = False
) -> tuple[Line, ...]:
    """The chart in exactly ``height`` lines of ``width`` cells.

    ``ascii_only``: dots by ASCII characters instead of braille. ``plain``: nothing is told by a
    colour alone.
    """
    if not has_room(width, height):
        return tuple(fitted([(data.title, "fg")], width) for _ in range(min(height, 1)))
    plot = plot_of(data, width, height, ascii_only)
    plot_height, plot_width = plot.characters.shape
    seen = replace(
        data,
        raw=plot.cut[: len(data.raw)],
        curves=plot.cut[len(data.raw) :],
        marks=tuple(m for m in data.marks if data.span[0] <= m.step <= data.span[1]),
    )
    lines = [_title(data, width)]
    if _told(data, height):
        lines.append(values_line(data, width))
    if plot.scale is None:
        lines += _nothing(seen, width, plot_height)
    else:
        lines += _plot(seen, plot, plot.scale, plain, width)
    lines.append(_axis(seen, plot_width, width))
    if height >= _LABELLED:
        timed = data.step_of is not None
        lines.append(_step_labels(data.span, data.cursor, timed, plot_width, width))
    return tuple(lines)


def has_room(width: int, height: int) -> bool:
    """More than the title fits."""
    return width >= LABEL_WIDTH + END_WIDTH + 4 and height >= 3


def plot_of(data: ChartData, width: int, height: int, ascii_only: bool = False) -> Plotted:
    """What :func:`draw` draws of the curves. It is kept: to draw them soon afterwards is quick."""
    axis = 2 if height >= _LABELLED else 1
    rows = max(height - 1 - axis - _told(data, height), 0)
    columns = plot_columns(len(data.curves), width)
    dots = raster.ASCII if ascii_only else raster.BRAILLE
    return plotted((*data.raw, *data.curves), data.span, data.log, columns, rows, dots)


def _told(data: ChartData, height: int) -> bool:
    """There is a line with every curve's value at the cursor."""
    return data.cursor is not None and len(data.curves) > 1 and height >= 9


def plot_columns(curves: int, width: int) -> int:
    """Cells of the plot itself in a chart of ``width``; it begins at LABEL_WIDTH + 1."""
    return width - LABEL_WIDTH - 1 - (END_WIDTH if curves > 1 else 1)


def _title(data: ChartData, width: int) -> Line:
    name_role = "accent bold" if data.selected else "fg bold"
    lead = glyphs.SELECTED if data.selected else " "
    right: list[Piece] = list(_value(data))
    if data.note and width >= _NOTED:
        right.append((f" {data.note}", "muted"))
    if data.log:
        right.append((" log", "muted"))
    flag = f" {glyphs.FLAG_MARK}" if data.flagged else ""
    room = width - width_of(right) - 2 - len(flag)
    unit = f" {data.unit}" if data.unit else ""
    if unit and len(data.title) + len(unit) <= room:
        # What is drawn matters more than its unit, which the help tells too.
        right.append((unit, "muted"))
        room -= len(unit)
    left = [(lead, "accent"), (clipped_key(data.title, room), name_role), (flag, "warn")]
    return spread(left, right, width)


def _value(data: ChartData) -> tuple[Piece, ...]:
    """The value at the cursor, else the newest; of several curves at the cursor their range."""
    if data.cursor is not None:
        values = raster.values_at(data.curves, data.cursor)
        known = [value for value in values if not math.isnan(value)]
        if not known:
            return (("–", "accent"),) if values else ()
        low, high = min(known), max(known)
        text = number(low) if low == high else f"{number(low)} … {number(high)}"
        return ((text, "accent bold" if all(map(math.isfinite, known)) else "bad bold"),)
    if len(data.curves) == 1 and len(data.curves[0]):
        curve = data.curves[0]
        # Measured on rare samples only: the newest of them, not the absence after it.
        newest = -1
        if curve.sparse and not np.isnan(curve.latest).all():
            newest = int(np.flatnonzero(~np.isnan(curve.latest))[-1])
        value = float(curve.latest[newest])
        return ((number(value), "fg" if np.isfinite(value) else "bad bold"),)
    return ()


def values_line(data: ChartData, width: int) -> Line:
    """Every curve's value at the cursor, in its colour, as many as there is room for."""
    pieces: list[Piece] = [(" " * (LABEL_WIDTH + 1), "fg")]
    left = width - LABEL_WIDTH - 1
    values = raster.values_at(data.curves, data.cursor or 0)
    for index, (curve, known) in enumerate(zip(data.curves, values, strict=True)):
        value = number(known)
        text = f"{curve.label} {value}"
        if len(text) + 2 > left:
            if left >= 2:
                pieces.append((glyphs.ELLIPSIS, "muted"))
            break
        pieces += [
            (f"{curve.label} ", "muted"),
            (f"{value}  ", series_role(index, len(data.curves))),
        ]
        left -= len(text) + 2
    return fitted(pieces, width)


def _nothing(data: ChartData, width: int, height: int) -> list[Line]:
    bad = any(curve.marks.any() for curve in data.curves if not curve.sparse or curve.measured)
    text = data.absent or ("no finite value" if bad and data.curves else "no value yet")
    middle = height // 2
    indent = " " * (LABEL_WIDTH + 1)
    return [
        fitted([(indent, "fg"), (clipped(text, width - len(indent)), "muted")], width)
        if row == middle
        else fitted([], width)
        for row in range(height)
    ]


def _plot(data: ChartData, plot: Plotted, scale: Scale, plain: bool, total: int) -> list[Line]:
    characters, owners = plot.characters, _owner_roles(data)
    height, width = characters.shape
    roles = list(dict.fromkeys([*owners, *MARK_ROLES, "accent"]))
    codes = np.array([roles.index(role) for role in owners])[plot.owner]
    uprights = [
        (dot_column(mark.step, data.span, width), glyphs.STEP_MARK, mark_role(mark))
        for mark in data.marks
    ]
    cursor = _cursor_column(data.cursor, data.span, width)
    if cursor is not None:
        uprights.append((cursor, glyphs.CURSOR_LINE, "accent"))
    if uprights or data.healthy is not None:
        characters = characters.copy()
        empty = characters == " "
    for column, glyph, role in uprights:
        characters[empty[:, column], column] = glyph
        codes[empty[:, column], column] = roles.index(role)
    if data.healthy is not None:
        shaded = _healthy_rows(data.healthy, scale, height)
        if plain:
            _dot(characters[shaded], codes[shaded], roles.index("faint"))
        else:
            codes[shaded] += len(roles)
            roles += [f"{role} on band" for role in roles]
    ends = _end_labels(data.curves, scale, height) if len(data.curves) > 1 else {}
    blank = (" " * (total - LABEL_WIDTH - 1 - width), "fg")
    rows = zip(_left_edge(scale, height), from_grid(characters, codes, roles), strict=True)
    return [
        (*edge, *cells, _padded(ends[row], len(blank[0])) if row in ends else blank)
        for row, (edge, cells) in enumerate(rows)
    ]


def _padded(piece: Piece, width: int) -> Piece:
    text, role = piece
    return text.ljust(width), role


def _owner_roles(data: ChartData) -> list[str]:
    """Colours of the raw curves and the curves, in the order they are drawn."""
    total = len(data.curves)
    return [*["faint"] * len(data.raw), *(series_role(i, total) for i in range(total))]


def _healthy_rows(healthy: tuple[float, float], scale: Scale, height: int) -> slice:
    """The rows of the healthy range, none where it lies outside the chart."""
    low, high = healthy
    if high < scale.low or low > scale.high:
        return slice(0)
    top = round((1 - scale.share(high)) * (height - 1))
    bottom = round((1 - scale.share(low)) * (height - 1))
    return slice(top, bottom + 1)


def _dot(characters: npt.NDArray[np.str_], codes: npt.NDArray[np.int64], code: int) -> None:
    """Points in place of a shade, where there are no colours."""
    empty = characters == " "
    empty[:, np.arange(empty.shape[1]) % 4 != 1] = False
    characters[empty] = glyphs.BEAD
    codes[empty] = code


def _cursor_column(cursor: int | None, span: Span, width: int) -> int | None:
    if cursor is None or not span[0] <= cursor <= span[1]:
        return None
    return dot_column(cursor, span, width)


MARK_ROLES = ("bad", "warn", "faint")


def mark_role(mark: StepMark) -> str:
    """Colour of a vertical mark, one of MARK_ROLES: faults and flags stand out, other events stay
    quiet."""
    return {"fault": "bad", "crash": "bad", "flagged": "warn"}.get(mark.kind, "faint")


def mark_glyph(kind: str) -> str:
    """The sign of an event's kind, the same on the axis of a chart and in the event log."""
    return {"fault": glyphs.FAULT_MARK, "flagged": glyphs.FLAG_MARK}.get(kind, glyphs.EVENT_MARK)


@lru_cache(maxsize=64)
def _left_edge(scale: Scale, height: int) -> tuple[Line, ...]:
    """The vertical axis with its labels, a line for each row."""
    rows: dict[int, str] = {}
    for tick, label in zip(scale.ticks, tick_labels(scale, LABEL_WIDTH), strict=True):
        row = round((1 - scale.share(tick)) * (height - 1))
        if row not in rows and row - 1 not in rows and row + 1 not in rows:
            rows[row] = label
    return tuple(
        (
            (rows.get(row, "").rjust(LABEL_WIDTH), "muted"),
            ("┤" if row in rows else glyphs.VERTICAL, "faint"),
        )
        for row in range(height)
    )


def _end_labels(curves: tuple[Curve, ...], scale: Scale, height: int) -> dict[int, Piece]:
    """Layer numbers at the right edge, at the height where their curves end."""
    found: dict[int, list[int]] = {}
    for index, curve in enumerate(curves):
        if not math.isnan(curve.newest):
            level = scale.share(curve.newest)
            found.setdefault(round((1 - level) * (height - 1)), []).append(index)
    labels = {}
    for row, indices in found.items():
        names = [curves[i].label for i in indices]
        if len(names) == 1:
            text = names[0]
        elif indices[-1] - indices[0] == len(indices) - 1:
            text = f"{names[0]}–{names[-1]}"
        else:
            text = f"{names[0]},{names[-1]}" if len(names) == 2 else f"{names[0]}+"
        text = text if len(text) < END_WIDTH else f"{names[0]}+"
        labels[row] = (f" {text}"[:END_WIDTH], series_role(indices[-1], len(curves)))
    return labels


def _axis(data: ChartData, width: int, total: int) -> Line:
    """The horizontal axis: marks of events, and of values that are not finite."""
    odd: dict[int, str] = {}
    marked = [curve for curve in data.curves if curve.marks.any()]
    for curve in sorted(marked, key=lambda curve: not curve.sparse):
        places = dot_columns((curve.first + curve.last) / 2, data.span, width)
        for bit, glyph in (
            (NAN, glyphs.NAN_MARK),
            (PLUS_INFINITY, glyphs.PLUS_INFINITY_MARK),
            (MINUS_INFINITY, glyphs.MINUS_INFINITY_MARK),
        ):
            if bit == NAN and curve.sparse:
                continue  # measured on rare samples only: absence is no news
            odd |= dict.fromkeys(places[(curve.marks & bit) > 0].tolist(), glyph)
    return _marked_axis(data.span, data.marks, data.cursor, tuple(odd.items()), width, total)


@lru_cache(maxsize=64)
def _marked_axis(
    span: Span,
    marks: tuple[StepMark, ...],
    cursor: int | None,
    odd: tuple[tuple[int, str], ...],
    width: int,
    total: int,
) -> Line:
    """``odd``: columns of values that are not finite, and the sign of each."""
    characters, roles = [glyphs.HORIZONTAL] * width, ["faint"] * width
    for column, glyph in odd:
        characters[column], roles[column] = glyph, "bad"
    for mark in marks:
        column = dot_column(mark.step, span, width)
        characters[column], roles[column] = mark_glyph(mark.kind), mark_role(mark)
    at = _cursor_column(cursor, span, width)
    if at is not None:
        if characters[at] == glyphs.HORIZONTAL:
            characters[at] = glyphs.CURSOR_FOOT
        roles[at] = "accent bold"
    left: list[Piece] = [(" " * LABEL_WIDTH, "fg"), ("└", "faint")]
    return fitted([*left, *from_cells(characters, roles)], total)


@lru_cache(maxsize=64)
def _step_labels(span: Span, cursor: int | None, timed: bool, width: int, total: int) -> Line:
    """The cursor's step under its column, the first and last step, round ones between; one that
    would touch another already there is left out. ``timed``: they are milliseconds."""
    told = duration if timed else str
    placed: list[tuple[int, str, str]] = []

    def place(text: str, start: int, role: str = "muted") -> None:
        start = min(max(start, 0), max(width - len(text), 0))
        apart = all(start > at + len(other) or start + len(text) < at for at, other, _ in placed)
        if len(text) <= width and apart:
            placed.append((start, text, role))

    at = _cursor_column(cursor, span, width)
    if at is not None:
        text = told(cursor or 0)
        place(text, at - len(text) // 2, "accent bold")
    first, last = (told(end) for end in span)
    place(first, 0)
    place(last, width - len(last))
    if not timed:
        for step in round_steps(span, width // _APART):
            text = str(step)
            place(text, dot_column(step, span, width) - len(text) // 2)
    pieces: list[Piece] = []
    end = -LABEL_WIDTH - 1
    for start, text, role in sorted(placed):
        pieces += [(" " * (start - end), "muted"), (text, role)]
        end = start + len(text)
    return fitted(pieces, total)
