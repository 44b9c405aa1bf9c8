"""Curves to dots, dots to characters. Plain arrays in, plain arrays out.

A curve is drawn as one vertical stroke of dots in every column: :func:`strokes` finds where each
begins and ends, :func:`cells` makes characters of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monitor.charts.scale import Scale
from monitor.charts.step_axis import columns_of
from monitor.envelope import Curve, FloatArray
from monitor.step_window import Span

IntArray = npt.NDArray[np.int64]
DotArray = npt.NDArray[np.int16]

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


def cut(curve: Curve, span: Span) -> Curve:
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
    return values_at([curve], step)[0]


def values_at(curves: Sequence[Curve], step: int) -> list[float]:
    """The same of every curve; those of one history share their steps."""
    found, steps, index = [], None, -1
    for curve in curves:
        if curve.first is not steps:
            steps = curve.first
            index = int(np.searchsorted(steps, step, side="right")) - 1
        found.append(float(curve.latest[index]) if index >= 0 else float("nan"))
    return found


def strokes(
    curves: Sequence[Curve], span: Span, scale: Scale, width: int, height: int
) -> tuple[DotArray, DotArray]:
    """Highest and lowest dot of every curve in every column, each of shape (curves, width), rows
    0 (top) to height - 1; the highest is below the lowest where there is none.

    Every bucket is drawn from its lowest to its highest value. Neighbouring buckets are joined
    unless one of them holds a value that is not finite: a gap is never bridged.
    """
    groups = _with_same_buckets(curves)
    if len(groups) == 1 and len(curves[0]):
        return _strokes_of_alike(curves, span, scale, width, height)
    top = np.full((len(curves), width), height, np.int16)
    bottom = np.full((len(curves), width), -1, np.int16)
    for places in groups:
        if len(curves[places[0]]):
            alike = [curves[place] for place in places]
            top[places], bottom[places] = _strokes_of_alike(alike, span, scale, width, height)
    return top, bottom


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


def _strokes_of_alike(
    curves: Sequence[Curve], span: Span, scale: Scale, width: int, height: int
) -> tuple[DotArray, DotArray]:
    at = columns_of(curves[0].first, curves[0].last, span, width)
    low, high = _rows([curve.low for curve in curves]), _rows([curve.high for curve in curves])
    marks = _rows([curve.marks for curve in curves])
    # The lowest value of a column first: where it lies is then asked once, not for every bucket.
    extremes = np.empty((2, len(curves), len(at.filled)), np.float32)
    np.fmax.reduceat(high, at.begins, axis=1, out=extremes[0])
    np.fmin.reduceat(low, at.begins, axis=1, out=extremes[1])
    ends = np.full((2, len(curves), width), np.nan)
    ends[:, :, at.filled] = scale.position(extremes)
    whole = (marks == 0) & ~np.isnan(low)
    joined = np.zeros((len(curves), width - 1), bool)
    joined[:, at.inner] = whole[:, at.before] & whole[:, at.before + 1]
    if len(at.gaps):
        # On the straight line from one bucket's middle to the next one's.
        both = scale.position(np.stack([low[:, at.gap_buckets], high[:, at.gap_buckets]]))
        start, stop = np.split(both.mean(axis=0), 2, axis=1)
        ends[:, :, at.gaps] = np.where(
            joined[:, at.gaps], start + (stop - start) * at.gap_share, np.nan
        )
    dots = np.rint((1 - ends) * (height - 1))
    top = np.fmin(dots[0], height).astype(np.int16)  # NaN, no dot, gives the other
    bottom = np.fmax(dots[1], -1).astype(np.int16)
    # A steep step: this column ends beside the dot where the next one begins.
    next_top, next_bottom = top[:, 1:].copy(), bottom[:, 1:].copy()
    np.minimum(top[:, :-1], next_bottom + 1, out=top[:, :-1], where=joined)
    np.maximum(bottom[:, :-1], next_top - 1, out=bottom[:, :-1], where=joined)
    return top, bottom


def _rows(arrays: Sequence[FloatArray | npt.NDArray[np.uint8]]) -> npt.NDArray[np.generic]:
    """Shape (arrays, values); a single one is not copied."""
    return arrays[0][None] if len(arrays) == 1 else np.array(arrays)


def cells(
    top: DotArray, bottom: DotArray, height: int, dots: tuple[int, int]
) -> tuple[npt.NDArray[np.str_], IntArray]:
    """Characters and owners, both of shape (height, columns // across), from the strokes of
    several curves, each of shape (curves, columns).

    The owner of a cell is the last curve with a dot in it, -1 for an empty cell.
    """
    across, down = dots
    rows = np.arange(0, height * down, down, dtype=np.int16)[:, None]
    full = np.uint8((1 << down) - 1)

    def from_dot(edge: DotArray) -> npt.NDArray[np.uint8]:
        """Of each cell the dots from ``edge`` down, as bits from above."""
        cut = edge[:, None] - rows
        np.minimum(np.maximum(cut, 0, out=cut), down, out=cut)
        return full << cut.astype(np.uint8)

    columns = from_dot(top) & ~from_dot(bottom + 1) & full
    codes = columns[:, :, ::across]
    for place in range(1, across):
        codes = codes | np.left_shift(columns[:, :, place::across], place * down, dtype=np.uint8)
    characters = _BRAILLE_CHARACTERS if dots == BRAILLE else _ASCII_CHARACTERS
    touched = codes != 0
    last = len(codes) - 1 - touched[::-1].argmax(axis=0)
    owner = np.where(touched.any(axis=0), last, -1)
    return characters[np.bitwise_or.reduce(codes, axis=0)], owner
