"""Exponential smoothing of curves that may have gaps. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from monitor.envelope import Curve, FloatArray
from monitor.kept import Kept

WEIGHTS = (0.0, 0.6, 0.9, 0.97)
"""Share of the past in each new value; 0 is off."""
_NEGLIGIBLE = 1e-3
KEPT = 48
"""Charts whose averages are kept: more than are on screen and are prepared for the next picture."""

_kept: Kept[tuple[Curve, ...]] = Kept(KEPT)


def ema(values: FloatArray, weight: float) -> FloatArray:
    """Exponential moving average along the last axis, shape as ``values``; NaN where the value
    itself is not finite.

    The average starts at the first value (no pull towards zero), and passes over a gap: what is
    not finite has no weight. Terms that weigh less than 1e-3 of the newest are left out.
    """
    finite = np.isfinite(values)
    if weight <= 0 or not finite.any():
        return values
    total = _weighted(np.where(finite, values, 0.0), weight)
    counted = np.ones(values.shape[-1]) if finite.all() else finite.astype(np.float64)
    share = _weighted(counted, weight)
    smoothed = np.full(values.shape, np.nan)
    np.divide(total, share, out=smoothed, where=finite & (share > 0))
    return smoothed.astype(np.float32)


def _weighted(values: npt.NDArray[np.float64], weight: float) -> npt.NDArray[np.float64]:
    """Of every place the sum of the values up to it, each weighing ``weight`` as much as the next.

    Twice as many terms in each round: all curves of a chart take a few operations together.
    """
    terms, total = 1, values.copy()
    while weight**terms >= _NEGLIGIBLE and terms < total.shape[-1]:
        total[..., terms:] += weight**terms * total[..., :-terms]
        terms *= 2
    return total


def smoothed(curves: Sequence[Curve], weight: float) -> tuple[Curve, ...]:
    """The averages of curves; infinities and NaN stay marked. With ``weight`` 0 the curves
    themselves. Of the same curves they are the same objects again."""
    return _kept.of(curves, weight, lambda: _made(curves, weight)) if weight else tuple(curves)


def _made(curves: Sequence[Curve], weight: float) -> tuple[Curve, ...]:
    found: dict[int, Curve] = {}
    lengths = [len(curve) for curve in curves]
    for length in set(lengths):
        places = [place for place, other in enumerate(lengths) if other == length]
        low = np.array([curves[place].low for place in places])
        high = np.array([curves[place].high for place in places])
        for place, middle in zip(places, ema((low + high) / 2, weight), strict=True):
            found[place] = replace(curves[place], low=middle, high=middle, latest=middle)
    return tuple(found[place] for place in range(len(curves)))
