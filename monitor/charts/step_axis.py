"""Where steps lie on a horizontal axis. What charts of one run share is found once for all."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from monitor.step_window import Span

IntArray = npt.NDArray[np.int64]


def dot_columns(steps: npt.ArrayLike, span: Span, width: int) -> IntArray:
    """Steps to columns 0 .. width - 1 of an axis that runs over ``span``."""
    first, last = span
    share = (np.asarray(steps, np.float64) - first) / max(last - first, 1)
    return np.clip(np.round(share * (width - 1)), 0, width - 1).astype(np.int64)


def dot_column(step: float, span: Span, width: int) -> int:
    """The column of one step, as :func:`dot_columns` gives it."""
    first, last = span
    share = (step - first) / max(last - first, 1)
    return min(max(round(share * (width - 1)), 0), width - 1)


def step_at(column: int, span: Span, width: int) -> float:
    """The step drawn at a column of an axis ``width`` columns wide; inverse of the others."""
    return span[0] + column / max(width - 1, 1) * (span[1] - span[0])


class Columns(Struct, frozen=True):
    """Where the buckets of a history lie on an axis; all of them int64, to be read only."""

    filled: IntArray
    """Columns that hold a bucket."""
    begins: IntArray
    """The first bucket of each of these."""
    inner: IntArray
    """Columns that have a bucket at or before them and one after."""
    before: IntArray
    """The last bucket up to each of these; the next bucket is the one after it."""
    gaps: IntArray
    """The ``inner`` columns that hold none themselves."""
    gap_buckets: IntArray
    """The buckets before these, then those after."""
    gap_share: npt.NDArray[np.float64]
    """How far each is on its way from the one to the other, in (0, 1)."""


def columns_of(first: IntArray, last: IntArray, span: Span, width: int) -> Columns:
    """The columns of buckets that hold the steps ``first`` to ``last``, each of shape (buckets,),
    at least one."""
    return _columns_of((first + last).tobytes(), span, width)


@lru_cache(maxsize=32)
def _columns_of(both: bytes, span: Span, width: int) -> Columns:
    columns = np.maximum.accumulate(dot_columns(np.frombuffer(both, np.int64) / 2, span, width))
    begins = np.flatnonzero(np.concatenate([[True], columns[1:] != columns[:-1]]))
    before = np.searchsorted(columns, np.arange(width - 1), side="right") - 1
    inner = np.flatnonzero((before >= 0) & (before < len(columns) - 1))
    before = before[inner]
    start = columns[before]
    empty = start != inner
    gaps, near, start = inner[empty], before[empty], start[empty]
    share = (gaps - start) / (columns[near + 1] - start)
    after = np.concatenate([near, near + 1])
    return Columns(columns[begins], begins, inner, before, gaps, after, share)
