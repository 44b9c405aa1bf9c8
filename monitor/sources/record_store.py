"""The records of a trace by their number, without holding them: a long one is larger than memory.

Where each record lies in the file and when it was made is kept; frames and scalars are read again
when they are wanted.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from probe.schema import End, FrameView, Header, Record, RecordView, Scalars
from probe.trace import TraceReader


def _time_of(record: RecordView) -> float:
    """Unix time at which the record was made; NaN where it says none."""
    if isinstance(record, Scalars):
        return record.times[-1] if record.times else math.nan
    return math.nan if isinstance(record, Header) else record.time


_PLACES = ("offsets", "lengths", "times", "frames", "steps")


class RecordStore:
    """Grows with the file. Raises TraceError as :class:`TraceReader` does."""

    def __init__(self, path: Path) -> None:
        self._reader = TraceReader(path)
        self._offsets = array("q")
        self._lengths = array("i")
        self._times = array("d")
        self._held: dict[int, Record] = {}
        """Headers, events and the end: few, and wanted often."""
        self.frames = array("q")
        """Number of each frame among the records."""
        self.steps = array("q")
        """Step of each frame."""
        self.ended = False
        """The last record is an end."""
        self.at_bound = False
        """All was read up to where :meth:`stop_at` told it to stop."""

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def first_header(self) -> Header | None:
        """The one that the trace begins with."""
        return next((r for r in self._held.values() if isinstance(r, Header)), None)

    @property
    def damaged(self) -> int:
        """Damaged places passed so far."""
        return self._reader.damaged

    def count_damaged(self, places: int) -> None:
        """Another reader passed them."""
        self._reader.damaged += places

    def arrays(self) -> dict[str, np.ndarray]:
        """Where everything lies, to be kept in a file."""
        return {
            "store.offsets": np.array(self._offsets, np.int64),
            "store.lengths": np.array(self._lengths, np.int32),
            "store.times": np.array(self._times, np.float64),
            "store.frames": np.array(self.frames, np.int64),
            "store.steps": np.array(self.steps, np.int64),
            "store.held": np.array(sorted(self._held), np.int64),
        }

    def resume(self, end: int, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Go on from offset ``end``; ``arrays`` tell of the records between here and there. Raises
        KeyError for other arrays."""
        if arrays is not None:
            self._know(arrays)
        self._reader.resume(end)
        self._reader.until = None
        self.at_bound = False

    def _know(self, arrays: Mapping[str, np.ndarray]) -> None:
        before = len(self)
        told = {name: arrays[f"store.{name}"] for name in _PLACES}
        for place, values in (
            (self._offsets, told["offsets"]),
            (self._lengths, told["lengths"]),
            (self._times, told["times"]),
            (self.frames, told["frames"] + before),
            (self.steps, told["steps"]),
        ):
            place.frombytes(values.tobytes())
        for number in (arrays["store.held"] + before).tolist():
            record = self._reader.at(self._offsets[number], self._lengths[number])
            if record is not None:
                self._held[number] = record
        last = self._held.get(len(self) - 1)
        self.ended = isinstance(last, End)

    def stop_at(self, offset: int) -> None:
        """Take the file to end at the record at ``offset``, until :meth:`resume`."""
        self._reader.until = offset

    @property
    def end(self) -> int:
        """Offset up to which the file was read."""
        return self._reader.offset

    @property
    def size(self) -> int:
        """Bytes of the file as it stands."""
        return self._reader.size

    def load(self, limit: int) -> list[RecordView]:
        """Take in up to ``limit`` further records. They are views of what was read: give them on
        at once, or let go of them."""
        found = self._reader.placed(limit)
        records, number = found.records, len(self._offsets)
        self._offsets.extend(found.offsets)
        self._lengths.extend(found.lengths)
        self._times.extend([r.time if type(r) is FrameView else _time_of(r) for r in records])
        frames = [at for at, record in enumerate(records) if type(record) is FrameView]
        self.frames.extend([number + at for at in frames])
        self.steps.extend([records[at].step for at in frames])  # type: ignore[union-attr]
        for at, record in enumerate(records):
            if type(record) is not FrameView and type(record) is not Scalars:
                self._held[number + at] = record  # type: ignore[assignment]
        self.at_bound = self._reader.until is not None and len(records) < limit
        if records:
            self.ended = isinstance(records[-1], End)
        return records

    def between(self, start: int, stop: int) -> list[Record]:
        """Records ``start`` .. ``stop``; one that can no longer be read is left out."""
        return self.numbered(range(start, stop))

    def numbered(self, numbers: Sequence[int]) -> list[Record]:
        """Records by their numbers; one that can no longer be read is left out."""
        found = []
        for number in numbers:
            record = self._held.get(number)
            if record is None:
                record = self._reader.at(self._offsets[number], self._lengths[number])
            if record is not None:
                found.append(record)
        return found

    def thinned(self, start: int, stop: int, most: int) -> list[int]:
        """Numbers of the records ``start`` .. ``stop`` without scalars, and of the frames at most
        ``most``, evenly apart, the last among them."""
        first, last = bisect_left(self.frames, start), bisect_left(self.frames, stop)
        every = max(1, math.ceil((last - first) / most))
        frames = self.frames[first:last][::-every]
        return sorted([*(number for number in self._held if start <= number < stop), *frames])

    def gap(self, number: int) -> float:
        """Seconds between a record and the one before; NaN where either has no time."""
        return self._times[number] - self._times[number - 1] if number else float("nan")

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._reader.close()
