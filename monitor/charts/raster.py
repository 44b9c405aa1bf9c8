"""Curves to dots, dots to characters. Plain arrays in, plain arrays out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monitor.charts.scale import Scale
from monitor.envelope import Curve

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

BRAILLE = (2, 4)
"""Dots per cell across and down."""
ASCII = (1, 2)

# Bit of each braille dot, by row and column within the cell (Unicode block 2800).
_BRAILLE_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_ASCII_CHARACTERS = np.array([" ", "'", ".", ":"])


def dot_columns(steps: npt.ArrayLike, span: tuple[int, int], width: int) -> IntArray:
    """Steps to columns 0 .. width - 1 of an axis that runs over ``span`` (first, last)."""
    first, last = span
    share = (np.asarray(steps, np.float64) - first) / max(last - first, 1)
    return np.clip(np.round(share * (width - 1)), 0, width - 1).astype(np.int64)


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
    """Dots of one curve, shape (height, width), row 0 on top.

    Every bucket is drawn from its lowest to its highest value. Neighbouring buckets are joined
    unless one of them holds a value that is not finite: a gap is never bridged.
    """
    dots = np.zeros((height, width), bool)
    finite = np.isfinite(curve.low)
    if not finite.any():
        return dots
    columns = dot_columns((curve.first + curve.last) / 2, span, width)
    low = scale.position(curve.low) * (height - 1)
    high = scale.position(curve.high) * (height - 1)
    bottom, top = np.full(width, np.inf), np.full(width, -np.inf)
    np.minimum.at(bottom, columns[finite], low[finite])
    np.maximum.at(top, columns[finite], high[finite])
    joined = np.zeros(width - 1, bool)
    whole = curve.marks == 0
    for start, stop in _runs(finite & whole):
        at, middle = columns[start:stop], (low[start:stop] + high[start:stop]) / 2
        between = np.arange(at[0], at[-1] + 1)
        level = np.interp(between, at, middle)
        empty = ~np.isfinite(bottom[between])
        bottom[between[empty]] = top[between[empty]] = level[empty]
        joined[at[0] : at[-1]] = True
    # Close steep steps: the next column begins where this one ends.
    below, above = bottom[1:].copy(), top[1:].copy()
    up = joined & (top[:-1] < below)
    down = joined & ~up & (bottom[:-1] > above)
    top[:-1][up] = below[up] - 1
    bottom[:-1][down] = above[down] + 1
    with np.errstate(invalid="ignore"):
        rows = np.arange(height - 1, -1, -1)[:, None]
        lowest = np.minimum(np.round(bottom), np.round(top))
        highest = np.maximum(np.round(bottom), np.round(top))
        drawn = np.isfinite(bottom)
        dots[:] = drawn & (rows >= lowest) & (rows <= highest)
    return dots


def _runs(mask: BoolArray) -> list[tuple[int, int]]:
    """Spans (start, stop) of consecutive True."""
    edges = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    return list(zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True))


def cells(
    layers: Sequence[BoolArray], width: int, height: int, dots: tuple[int, int]
) -> tuple[npt.NDArray[np.str_], IntArray]:
    """Characters and owners, both of shape (height, width), from the dots of several curves.

    The owner of a cell is the last curve with a dot in it, -1 for an empty cell.
    """
    across, down = dots
    union = np.zeros((height * down, width * across), bool)
    owner = np.full((height, width), -1, np.int64)
    for index, layer in enumerate(layers):
        union |= layer
        touched = layer.reshape(height, down, width, across).any(axis=(1, 3))
        owner[touched] = index
    blocks = union.reshape(height, down, width, across)
    if dots == BRAILLE:
        codes = np.einsum("hdwa,da->hw", blocks, _BRAILLE_BITS)
        characters = np.where(codes > 0, codes + 0x2800, ord(" ")).astype(np.uint32)
        return characters.view("<U1").reshape(height, width), owner
    bits = blocks[:, 0, :, 0] + 2 * blocks[:, 1, :, 0]
    return _ASCII_CHARACTERS[bits], owner
