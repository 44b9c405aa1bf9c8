"""A bounded history of many values that never loses a spike.

An :class:`Envelope` holds buckets of samples. Each bucket keeps the smallest, the largest and the
latest value of every column, and marks what was not finite. When all buckets are full, neighbours
are merged in pairs and later buckets hold twice as many samples: memory stays bounded, the whole
run stays visible, extremes and NaN survive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from msgspec import Struct

FloatArray = npt.NDArray[np.float32]

NAN, PLUS_INFINITY, MINUS_INFINITY = 1, 2, 4
"""Bits of a bucket's mark: the bucket holds at least one such value."""

_FIRST_ALLOCATION = 64


class Curve(Struct, frozen=True, dict=True):
    """One column of an envelope, each field of shape (buckets,). ``first`` and ``last`` are steps.

    ``low`` and ``high`` are over finite values only, NaN where a bucket has none; ``latest`` is
    the last value as it came, finite or not.
    """

    label: str
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    low: FloatArray
    high: FloatArray
    latest: FloatArray
    marks: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def sparse(self) -> bool:
        """Most buckets hold no finite value: the metric is measured on rare samples only."""
        return len(self) > 0 and int(np.isfinite(self.high).sum()) * 2 < len(self)

    @cached_property
    def newest(self) -> float:
        """The highest value of the last bucket that holds a finite one; NaN where none does."""
        finite = np.flatnonzero(np.isfinite(self.high))
        return float(self.high[finite[-1]]) if len(finite) else math.nan

    @property
    def measured(self) -> bool:
        """At least one value is finite or infinite."""
        infinite = PLUS_INFINITY | MINUS_INFINITY
        return bool(np.isfinite(self.high).any() or (self.marks & infinite).any())


class Envelope:
    """History of ``columns`` values per sample in at most ``capacity`` (even) buckets."""

    def __init__(self, columns: int, capacity: int = 512) -> None:
        if capacity < 2 or capacity % 2:
            raise ValueError("capacity must be an even number of at least 2")
        self.capacity = capacity
        self.columns = columns
        self.count = 0
        self.stride = 1
        """Samples a full bucket holds."""
        self._filled = 0
        self._allocate(min(_FIRST_ALLOCATION, capacity))

    def _allocate(self, rows: int) -> None:
        self._first = np.zeros(rows, np.int64)
        self._last = np.zeros(rows, np.int64)
        # What is in a bucket is written when it is opened.
        self._low = np.empty((rows, self.columns), np.float32)
        self._high = np.empty((rows, self.columns), np.float32)
        self._latest = np.empty((rows, self.columns), np.float32)
        self._marks = np.empty((rows, self.columns), np.uint8)

    @property
    def _arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        return (self._first, self._last, self._low, self._high, self._latest, self._marks)

    def extend(self, steps: npt.NDArray[np.int64], values: FloatArray) -> None:
        """Add samples; ``values`` has shape (samples, columns)."""
        at = 0
        while at < len(steps):
            if self.count and self._filled < self.stride:
                piece = slice(at, at + self.stride - self._filled)
                self._add(steps[piece], values[piece])
                self._filled += len(steps[piece])
                at = piece.stop
                continue
            self._make_room()
            full = min((len(steps) - at) // self.stride, len(self._first) - self.count)
            if full:
                piece = slice(at, at + full * self.stride)
                self._append(steps[piece], values[piece], full)
                at = piece.stop
            else:
                self._open_bucket()

    def merge_into_last(self, values: FloatArray) -> None:
        """Add one more sample, shape (columns,), of the newest step (another rank's) to it."""
        self._add(self._last[self.count - 1 : self.count], values[None, :])

    @property
    def last_step(self) -> int | None:
        return int(self._last[self.count - 1]) if self.count else None

    def _make_room(self) -> None:
        """For at least one bucket more."""
        if self.count == self.capacity:
            self._halve()
        if self.count == len(self._first):
            held = self._arrays
            self._allocate(min(self.capacity, 2 * self.count))
            for new, old in zip(self._arrays, held, strict=True):
                new[: self.count] = old

    def _open_bucket(self) -> None:
        row = self.count
        self._low[row] = self._high[row] = self._latest[row] = np.nan
        self._marks[row] = 0
        self._first[row] = -1
        self.count += 1
        self._filled = 0

    def _append(self, steps: npt.NDArray[np.int64], values: FloatArray, buckets: int) -> None:
        """Full buckets, at once."""
        rows, last = slice(self.count, self.count + buckets), self.stride - 1
        self._first[rows], self._last[rows] = steps[:: self.stride], steps[last :: self.stride]
        samples = values.reshape(buckets, self.stride, self.columns)
        self._low[rows], self._high[rows], self._marks[rows] = _extremes(samples)
        self._latest[rows] = values[last :: self.stride]
        self.count += buckets
        self._filled = self.stride

    def _halve(self) -> None:
        """Merge neighbouring buckets; of an odd number the last one stays by itself."""
        pairs = self.count // 2
        even, odd = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        self._first[:pairs] = self._first[even]
        self._last[:pairs] = self._last[odd]
        self._low[:pairs] = np.fmin(self._low[even], self._low[odd])
        self._high[:pairs] = np.fmax(self._high[even], self._high[odd])
        self._latest[:pairs] = self._latest[odd]
        self._marks[:pairs] = self._marks[even] | self._marks[odd]
        if self.count % 2:
            for values in self._arrays:
                values[pairs] = values[self.count - 1]
        else:
            self._filled += self.stride
        self.count -= pairs
        self.stride *= 2

    def join(self, later: Envelope) -> None:
        """Add what an envelope of the same shape holds of later steps; that one is used up."""
        if not later.count:
            return
        while later.stride < self.stride:
            later._halve()
        while self.stride < later.stride:
            self._halve()
        while self.count + later.count > self.capacity:
            self._halve()
            later._halve()
        count = self.count + later.count
        held = self._arrays
        self._allocate(min(self.capacity, max(count, _FIRST_ALLOCATION)))
        for new, old, added in zip(self._arrays, held, later._arrays, strict=True):
            new[: self.count] = old[: self.count]
            new[self.count : count] = added[: later.count]
        self.count, self._filled = count, later._filled

    def _add(self, steps: npt.NDArray[np.int64], values: FloatArray) -> None:
        row = self.count - 1
        (low,), (high,), (marks,) = _extremes(values[None])
        self._low[row] = np.fmin(self._low[row], low)
        self._high[row] = np.fmax(self._high[row], high)
        self._marks[row] |= marks
        self._latest[row] = values[-1]
        if self._first[row] < 0:
            self._first[row] = steps[0]
        self._last[row] = steps[-1]

    def curve(self, column: int, label: str = "", upto: int | None = None) -> Curve:
        """Copies of one column's buckets, those that begin after step ``upto`` left out."""
        return self.curves([(column, label)], upto)[0]

    def curves(
        self, columns: Sequence[tuple[int, str]], upto: int | None = None
    ) -> tuple[Curve, ...]:
        """The same of several columns, each with its label; they share the steps."""
        count = self._visible(upto)
        first, last = self._first[:count].copy(), self._last[:count].copy()
        return tuple(
            Curve(
                label,
                first,
                last,
                self._low[:count, column].copy(),
                self._high[:count, column].copy(),
                self._latest[:count, column].copy(),
                self._marks[:count, column].copy(),
            )
            for column, label in columns
        )

    def _visible(self, upto: int | None) -> int:
        if upto is None:
            return self.count
        return int(np.searchsorted(self._first[: self.count], upto, side="right"))

    def latest(self, column: int) -> float:
        """The newest value of a column, NaN before the first."""
        return float(self._latest[self.count - 1, column]) if self.count else float("nan")

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """The newest step of every bucket."""
        return self._last[: self.count].copy()

    def value(self, column: int, step: int | None = None) -> float:
        """The newest value of a column, or that of the bucket not after ``step``."""
        if step is None:
            return self.latest(column)
        index = int(np.searchsorted(self._first[: self.count], step, side="right")) - 1
        return float(self._latest[index, column]) if index >= 0 else float("nan")

    def rearranged(self, sources: list[int | None]) -> Envelope:
        """A new envelope whose column i is this one's column ``sources[i]``; None: no history."""
        new = Envelope(len(sources), self.capacity)
        new._allocate(len(self._first))
        new.count, new.stride, new._filled = self.count, self.stride, self._filled
        new._first[:], new._last[:] = self._first, self._last
        for column, source in enumerate(sources):
            if source is None:
                new._low[:, column] = new._high[:, column] = new._latest[:, column] = np.nan
                new._marks[:, column] = NAN
                continue
            new._low[:, column] = self._low[:, source]
            new._high[:, column] = self._high[:, source]
            new._latest[:, column] = self._latest[:, source]
            new._marks[:, column] = self._marks[:, source]
        return new


def _extremes(values: FloatArray) -> tuple[FloatArray, FloatArray, npt.NDArray[np.uint8]]:
    """Lowest and highest finite value, NaN where there is none, and the marks of what is not
    finite, each (buckets, columns); ``values`` has shape (buckets, samples, columns)."""
    low, high = values.min(axis=1), values.max(axis=1)  # NaN where any value is
    marks = np.zeros(low.shape, np.uint8)
    odd = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)).all(axis=0))
    if len(odd):
        found = values[:, :, odd]
        kept = np.where(np.isfinite(found), found, np.nan)
        low[:, odd], high[:, odd] = np.fmin.reduce(kept, axis=1), np.fmax.reduce(kept, axis=1)
        for bit, those in (
            (NAN, np.isnan(found)),
            (PLUS_INFINITY, found == np.inf),
            (MINUS_INFINITY, found == -np.inf),
        ):
            marks[:, odd] |= (bit * those.any(axis=1)).astype(np.uint8)
    return low, high, marks
