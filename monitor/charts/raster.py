"""Curves to dots, dots to characters. Plain arrays in, plain arrays out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monitor.charts.scale import Scale
from monitor.envelope import Curve

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatGrid = npt.NDArray[np.float64]

BRAILLE = (2, 4)
"""Dots per cell across and down."""
ASCII = (1, 2)

# Bit of each braille dot, down the left column of the cell, then the right (Unicode block 2800).
_BRAILLE_BITS = (0x01, 0x02, 0x04, 0x40, 0x08, 0x10, 0x20, 0x80)
_BRAILLE_CHARACTERS = np.array(
    [" "]
    + [
        chr(0x2800 + sum(bit for place, bit in enumerate(_BRAILLE_BITS) if dots >> place & 1))
        for dots in range(1, 256)
    ]
)
"""By the dots set: bit 0 is the upper left one, bit 7 the lower right one."""
_ASCII_CHARACTERS = np.array([" ", "'", ".", ":"])


def dot_columns(steps: npt.ArrayLike, span: tuple[int, int], width: int) -> IntArray:
    """Steps to columns 0 .. width - 1 of an axis that runs over ``span`` (first, last)."""
    first, last = span
    share = (np.asarray(steps, np.float64) - first) / max(last - first, 1)
    return np.clip(np.round(share * (width - 1)), 0, width - 1).astype(np.int64)


def dot_column(step: float, span: tuple[int, int], width: int) -> int:
    """The column of one step, as :func:`dot_columns` gives it."""
    first, last = span
    share = (step - first) / max(last - first, 1)
    return min(max(round(share * (width - 1)), 0), width - 1)


def cut(curve: Curve, span: tuple[int, int]) -> Curve:
    """The buckets that hold a step of ``span`` (first, last)."""
    inside = (curve.last >= span[0]) & (curve.first <= span[1])
    if inside.all():
        return curve
    return Curve(
        curve.label,
        curve.first[inside],
        curve.last[inside],
        curve.low[inside],
        curve.high[inside],
        curve.latest[inside],
        curve.marks[inside],
    )


def value_at(curve: Curve, step: int) -> float:
    """The newest value not after ``step``; NaN before the first."""
    index = int(np.searchsorted(curve.first, step, side="right")) - 1
    return float(curve.latest[index]) if index >= 0 else float("nan")


def step_at(column: int, span: tuple[int, int], width: int) -> float:
    """The step drawn at a column of an axis ``width`` columns wide; inverse of the next."""
    return span[0] + column / max(width - 1, 1) * (span[1] - span[0])


def curve_dots(
    curve: Curve, span: tuple[int, int], scale: Scale, width: int, height: int
) -> BoolArray:
    """Dots of one curve, shape (height, width), row 0 on top."""
    return curves_dots([curve], span, scale, width, height)[0]


def curves_dots(
    curves: Sequence[Curve], span: tuple[int, int], scale: Scale, width: int, height: int
) -> BoolArray:
    """Dots of several curves, shape (curves, height, width), row 0 on top.

    Every bucket is drawn from its lowest to its highest value. Neighbouring buckets are joined
    unless one of them holds a value that is not finite: a gap is never bridged.
    """
    dots = np.zeros((len(curves), height, width), bool)
    for places in _with_same_buckets(curves):
        if len(curves[places[0]]):
            alike = [curves[place] for place in places]
            dots[places] = _dots_of_alike(alike, span, scale, width, height)
    return dots


def _with_same_buckets(curves: Sequence[Curve]) -> list[list[int]]:
    """Places of the curves, those together whose buckets hold the same steps: what one history
    gives, the layers of a metric, is drawn at once."""
    found: list[list[int]] = []
    for place, curve in enumerate(curves):
        for places in found:
            other = curves[places[0]]
            if _same(curve.first, other.first) and _same(curve.last, other.last):
                places.append(place)
                break
        else:
            found.append([place])
    return found


def _same(one: IntArray, other: IntArray) -> bool:
    return one is other or np.array_equal(one, other)


def _dots_of_alike(
    curves: Sequence[Curve], span: tuple[int, int], scale: Scale, width: int, height: int
) -> BoolArray:
    bottom, top, joined = _edges(curves, span, scale, width, height)
    # Close steep steps: the next column begins where this one ends.
    below, above = bottom[:, 1:].copy(), top[:, 1:].copy()
    up = joined & (top[:, :-1] < below)
    down = joined & ~up & (bottom[:, :-1] > above)
    np.copyto(top[:, :-1], below - 1, where=up)
    np.copyto(bottom[:, :-1], above + 1, where=down)
    rows = np.arange(height - 1, -1, -1, dtype=np.int16)[:, None]
    empty = np.isinf(bottom)
    bottom, top = np.round(bottom), np.round(top)
    lowest = np.where(empty, height, np.minimum(bottom, top)).astype(np.int16)
    highest = np.where(empty, -1, np.maximum(bottom, top)).astype(np.int16)
    return (rows >= lowest[:, None, :]) & (rows <= highest[:, None, :])


def _edges(
    curves: Sequence[Curve], span: tuple[int, int], scale: Scale, width: int, height: int
) -> tuple[FloatGrid, FloatGrid, BoolArray]:
    """Lowest and highest dot of every curve in every column, shape (curves, width), infinite where
    there is none; and whether a column is joined with the next, shape (curves, width - 1)."""

    def level(values: npt.NDArray[np.float32]) -> FloatGrid:
        return scale.position(values) * (height - 1)

    middles = (curves[0].first + curves[0].last) / 2
    columns = np.maximum.accumulate(dot_columns(middles, span, width))
    low, high = np.array([curve.low for curve in curves]), np.array([c.high for c in curves])
    begins = np.flatnonzero(np.concatenate([[True], columns[1:] != columns[:-1]]))
    filled = columns[begins]
    bottom = np.full((len(curves), width), np.nan)
    top = bottom.copy()
    # The lowest value of a column first: where it lies is then asked once, not for every bucket.
    bottom[:, filled] = level(np.fmin.reduceat(low, begins, axis=1))
    top[:, filled] = level(np.fmax.reduceat(high, begins, axis=1))
    # The last bucket up to each column, and the one after it: joined where both are whole.
    before = np.searchsorted(columns, np.arange(width - 1), side="right") - 1
    inner = np.flatnonzero((before >= 0) & (before < len(columns) - 1))
    before = before[inner]
    marks = np.array([curve.marks for curve in curves])
    whole = (marks == 0) & ~np.isnan(low)
    joined = np.zeros((len(curves), width - 1), bool)
    joined[:, inner] = whole[:, before] & whole[:, before + 1]
    # Columns between two buckets: on the straight line from one to the other.
    empty = columns[before] != inner
    before, between = before[empty], inner[empty]
    if len(between):
        start, stop = ((level(low[:, at]) + level(high[:, at])) / 2 for at in (before, before + 1))
        slope = (stop - start) / (columns[before + 1] - columns[before])
        line = np.where(joined[:, between], slope * (between - columns[before]) + start, np.nan)
        bottom[:, between] = top[:, between] = line
    nothing = np.isnan(bottom)
    bottom[nothing], top[nothing] = np.inf, -np.inf
    return bottom, top, joined


def cells(
    layers: Sequence[BoolArray] | BoolArray, width: int, height: int, dots: tuple[int, int]
) -> tuple[npt.NDArray[np.str_], IntArray]:
    """Characters and owners, both of shape (height, width), from the dots of several curves.

    The owner of a cell is the last curve with a dot in it, -1 for an empty cell.
    """
    across, down = dots
    grid = np.asarray(layers, bool).reshape(-1, height * down, width * across)
    union = np.logical_or.reduce(grid, axis=0)
    rows = np.logical_or.reduce(grid.reshape(-1, height, down, width * across), axis=2)
    touched = np.logical_or.reduce([rows[:, :, at::across] for at in range(across)])
    owner = np.full((height, width), -1, np.int64)
    if len(touched):
        last = len(touched) - 1 - touched[::-1].argmax(axis=0)
        owner = np.where(touched.any(axis=0), last, owner)
    blocks = union.reshape(height, down, width, across)
    if dots == BRAILLE:
        columns = blocks.transpose(0, 2, 3, 1).reshape(height, width, across * down)
        packed = np.packbits(columns, axis=2, bitorder="little")[:, :, 0]
        return _BRAILLE_CHARACTERS[packed], owner
    bits = blocks[:, 0, :, 0] + 2 * blocks[:, 1, :, 0]
    return _ASCII_CHARACTERS[bits], owner
