"""Vertical scales: which values a chart spans, where its ticks are, linear or logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from monitor.envelope import Curve, FloatArray
from monitor.formatting import number

LOG_FLOOR = 1e-9
"""Smallest value a logarithmic axis goes down to; zero and below are drawn at the floor."""


class Scale(Struct, frozen=True):
    """From ``low`` (bottom) to ``high`` (top), in the chart's own units."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def position(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Values to [0, 1] from bottom to top, clipped; NaN stays NaN."""
        values = np.asarray(values, np.float64)
        if not self.log:
            found = (values - self.low) / (self.high - self.low)
        else:
            low, high = math.log(self.low), math.log(self.high)
            found = (np.log(np.maximum(values, self.low)) - low) / (high - low)
        # Not np.clip, which takes longer than all the rest where the values are few.
        return np.minimum(np.maximum(found, 0.0), 1.0)

    def share(self, value: float) -> float:
        """The position of one finite value."""
        if not self.log:
            found = (value - self.low) / (self.high - self.low)
        else:
            low, high = math.log(self.low), math.log(self.high)
            found = (math.log(max(value, self.low)) - low) / (high - low)
        return min(max(found, 0.0), 1.0)


def scale_for(curves: Sequence[Curve], log: bool, ticks: int = 4) -> Scale | None:
    """A scale that holds every finite value of the curves; None where there is none."""
    low = np.concatenate([curve.low for curve in curves]) if curves else np.empty(0)
    high = np.concatenate([curve.high for curve in curves]) if curves else np.empty(0)
    finite = np.isfinite(low)
    if not finite.any():
        return None
    if log:
        return _log_scale(low[finite], high[finite])
    return _linear_scale(float(low[finite].min()), float(high[finite].max()), ticks)


def tick_labels(scale: Scale, width: int) -> tuple[str, ...]:
    """A text for each tick, of at most about ``width`` characters, no two alike.

    Where a large number hardly moves, the lowest tick is told in full, the others by what they add.
    """
    labels = tuple(_tick_label(tick, scale, width) for tick in scale.ticks)
    if len(set(labels)) == len(labels):
        return labels
    base = scale.ticks[0]
    return (labels[0], *(f"+{number(tick - base)}" for tick in scale.ticks[1:]))


def _tick_label(tick: float, scale: Scale, width: int) -> str:
    """Short, and yet different from the next tick's where that can be."""
    if not scale.log and len(scale.ticks) > 1 and 1e-3 <= abs(tick) < 1e4:
        apart = scale.ticks[1] - scale.ticks[0]
        text = f"{tick:.{max(0, math.ceil(-math.log10(apart) - 1e-9))}f}"
        if len(text) <= width:
            return text
    text = number(tick)
    plain = "." in text and text[-1].isdigit() and "e" not in text
    return text.rstrip("0").rstrip(".") if plain else text


def _linear_scale(low: float, high: float, ticks: int) -> Scale:
    # Float32 resolution: what differs by less is a constant, drawn in the middle.
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-30):
        pad = abs(low) * 0.1
        low, high = (low - pad, high + pad) if pad else (0.0, 1.0)
    unit = _nice((high - low) / max(ticks - 1, 1))
    first, last = math.floor(low / unit + 1e-6), math.ceil(high / unit - 1e-6)
    values = tuple(float(f"{n * unit:.12g}") for n in range(first, last + 1))
    return Scale(values[0], values[-1], False, values)


def round_steps(span: tuple[int, int], most: int) -> tuple[int, ...]:
    """Round steps inside a span (first, last), at most ``most``, evenly apart."""
    first, last = span
    if most < 1 or last - first < 2:
        return ()
    every = max(1, round(_nice((last - first) / (most + 1))))
    return tuple(range((first // every + 1) * every, last, every))


def _nice(size: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least ``size``."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(power * m for m in (1.0, 2.0, 5.0, 10.0) if power * m >= size * (1 - 1e-9))


def _log_scale(low: FloatArray, high: FloatArray) -> Scale:
    positive = high[high > 0]
    if not len(positive):
        return Scale(LOG_FLOOR, 1.0, True, (LOG_FLOOR, 1.0))
    top = max(float(positive.max()), LOG_FLOOR * 10)
    bottom = max(float(np.concatenate([low[low > 0], positive]).min()), LOG_FLOOR)
    if top < 10 * bottom:
        # Less than a decade: between 1, 2 and 5, so that the curve is not a flat line.
        decade = math.floor(math.log10(bottom))
        steps = [m * 10.0**n for n in range(decade, decade + 3) for m in (1, 2, 5)]
        low_at = max(i for i, step in enumerate(steps) if step <= bottom * (1 + 1e-9))
        high_at = next(i for i, step in enumerate(steps) if step >= top and i > low_at)
        return Scale(steps[low_at], steps[high_at], True, tuple(steps[low_at : high_at + 1]))
    first, last = math.floor(math.log10(bottom)), math.ceil(math.log10(top) - 1e-9)
    if last <= first:
        last = first + 1
    every = max(1, math.ceil((last - first) / 4))
    ticks = tuple(10.0**n for n in range(first, last + 1, every))
    return Scale(10.0**first, 10.0**last, True, ticks)
