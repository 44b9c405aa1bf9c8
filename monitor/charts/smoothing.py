"""Exponential smoothing of curves that may have gaps. Arrays in, arrays out."""

from __future__ import annotations

import math

import numpy as np
from msgspec.structs import replace

from monitor.envelope import Curve, FloatArray
from monitor.kept import Kept

WEIGHTS = (0.0, 0.6, 0.9, 0.97)
"""Share of the past in each new value; 0 is off."""
_NEGLIGIBLE = 1e-3
KEPT = 512
"""Averages kept: more than are on screen, twelve charts of forty layers."""

_kept: Kept[Curve] = Kept(KEPT)


def ema(values: FloatArray, weight: float) -> FloatArray:
    """Exponential moving average, shape as ``values``; NaN where the value itself is not finite.

    The average starts at the first value (no pull towards zero), and passes over a gap: what is
    not finite has no weight. Terms that weigh less than 1e-3 of the newest are left out, which
    makes it a convolution.
    """
    finite = np.isfinite(values)
    if weight <= 0 or not finite.any():
        return values
    length = min(len(values), math.ceil(math.log(_NEGLIGIBLE) / math.log(weight)))
    kernel = weight ** np.arange(length)
    kept = np.where(finite, values, 0.0).astype(np.float64)
    count = len(values)
    total = np.convolve(kept, kernel)[:count]
    if finite.all():
        share = np.full(count, kernel.sum())
        share[:length] = kernel.cumsum()
    else:
        share = np.convolve(finite.astype(np.float64), kernel)[:count]
    smoothed = np.full(count, np.nan)
    np.divide(total, share, out=smoothed, where=finite & (share > 0))
    return smoothed.astype(np.float32)


def smoothed(curve: Curve, weight: float) -> Curve:
    """The curve's average; its infinities and NaN stay marked. Of the same curve it is the same
    object again."""
    return _kept.of([curve], weight, lambda: _made(curve, weight))


def _made(curve: Curve, weight: float) -> Curve:
    middle = ema(((curve.low + curve.high) / 2).astype(np.float32), weight)
    return replace(curve, low=middle, high=middle, latest=middle)
