"""Several curves as one, and one curve less another. Curves in, curves out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monitor.envelope import NAN, Curve


def together(curves: Sequence[Curve], label: str) -> Curve:
    """The curves in the buckets of the first: lowest and highest value of all, the median of the
    latest; marks of all of them. Raises ValueError for none."""
    if not curves:
        raise ValueError("no curves to put together")
    home = curves[0]
    if len(curves) == 1:
        return Curve(label, *_fields(home))
    low, high = home.low.copy(), home.high.copy()
    marks = home.marks.copy()
    latest = [home.latest]
    for curve in curves[1:]:
        if not len(curve) or not len(home):
            continue
        at = np.clip(np.searchsorted(home.first, curve.first, side="right") - 1, 0, None)
        np.fmin.at(low, at, curve.low)
        np.fmax.at(high, at, curve.high)
        np.bitwise_or.at(marks, at, curve.marks)
        newest = np.full(len(home), np.nan, np.float32)
        newest[at] = curve.latest  # the last of a bucket's stays
        latest.append(newest)
    return Curve(label, home.first, home.last, low, high, _median(latest), marks)


def middle(curves: Sequence[Curve], label: str) -> Curve:
    """The median of the curves' latest values as a line of its own, without extremes."""
    merged = together(curves, label)
    line = np.where(np.isfinite(merged.latest), merged.latest, np.nan).astype(np.float32)
    return Curve(label, merged.first, merged.last, line, line, line, merged.marks)


def difference(curve: Curve, baseline: Curve) -> Curve:
    """The curve less the baseline's newest value at the same step.

    NaN before the baseline begins and after it ended: nothing is made up beyond its steps.
    """
    if not len(baseline):
        nothing = np.full(len(curve), np.nan, np.float32)
        marks = np.full(len(curve), NAN, np.uint8)
        return Curve(curve.label, curve.first, curve.last, nothing, nothing, nothing, marks)
    at = np.searchsorted(baseline.first, curve.last, side="right") - 1
    inside = (at >= 0) & (curve.first <= baseline.last[-1])
    base = np.where(inside, baseline.latest[np.clip(at, 0, None)], np.nan)
    with np.errstate(invalid="ignore"):
        low, high, latest = curve.low - base, curve.high - base, curve.latest - base
    finite = np.isfinite(low) & np.isfinite(high)
    low, high = (np.where(finite, edge, np.nan).astype(np.float32) for edge in (low, high))
    marks = np.where(inside, curve.marks, 0).astype(np.uint8)
    return Curve(curve.label, curve.first, curve.last, low, high, latest.astype(np.float32), marks)


def _fields(curve: Curve) -> tuple[np.ndarray, ...]:
    return curve.first, curve.last, curve.low, curve.high, curve.latest, curve.marks


def _median(values: list[np.ndarray]) -> np.ndarray:
    stacked = np.stack(values)
    known = ~np.isnan(stacked).all(axis=0)
    found = np.full(stacked.shape[1], np.nan, np.float32)
    found[known] = np.nanmedian(stacked[:, known], axis=0)
    return found
