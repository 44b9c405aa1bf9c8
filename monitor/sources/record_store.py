"""The records of a trace by their number, without holding them: a long one is larger than memory.

Where each record lies in the file and when it was made is kept; frames and scalars are read again
when they are wanted. What was just read is at hand until it was given out once.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from probe.schema import End, Frame, Header, Record, Scalars
from probe.trace import TraceReader

_AT_HAND = 4000
"""Records just read that are held until they were given out."""


def recorded_time(record: Record) -> float | None:
    """Unix time at which the record was made, where it says so."""
    if isinstance(record, Scalars):
        return record.times[-1] if record.times else None
    return None if isinstance(record, Header) else record.time


class RecordStore:
    """Grows with the file. Raises TraceError as :class:`TraceReader` does."""

    def __init__(self, path: Path) -> None:
        self._reader = TraceReader(path)
        self._offsets = array("q")
        self._lengths = array("i")
        self._times = array("d")
        self._held: dict[int, Record] = {}
        """Headers, events and the end: few, and wanted often."""
        self._recent: deque[tuple[int, Record]] = deque(maxlen=_AT_HAND)
        self.frames = array("q")
        """Number of each frame among the records."""
        self.steps = array("q")
        """Step of each frame."""
        self.ended = False
        """The last record is an end."""

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def damaged(self) -> int:
        """Damaged places passed so far."""
        return self._reader.damaged

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

    def resume(self, end: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Know already what lies before offset ``end``. Raises KeyError for other arrays."""
        for place, name in (
            (self._offsets, "offsets"),
            (self._lengths, "lengths"),
            (self._times, "times"),
            (self.frames, "frames"),
            (self.steps, "steps"),
        ):
            place.frombytes(arrays[f"store.{name}"].tobytes())
        for number in arrays["store.held"].tolist():
            record = self._reader.at(self._offsets[number], self._lengths[number])
            if record is not None:
                self._held[number] = record
        last = self._held.get(len(self) - 1)
        self.ended = isinstance(last, End)
        self._reader.resume(end)

    @property
    def end(self) -> int:
        """Offset up to which the file was read."""
        return self._reader.offset

    def load(self, limit: int) -> int:
        """Take in up to ``limit`` further records; how many there were."""
        found = self._reader.placed(limit)
        for offset, length, record in found:
            number = len(self._offsets)
            self._offsets.append(offset)
            self._lengths.append(length)
            time = recorded_time(record)
            self._times.append(float("nan") if time is None else time)
            if isinstance(record, Frame):
                self.frames.append(number)
                self.steps.append(record.step)
            elif not isinstance(record, Scalars):
                self._held[number] = record
            self._recent.append((number, record))
            self.ended = isinstance(record, End)
        return len(found)

    def between(self, start: int, stop: int) -> list[Record]:
        """Records ``start`` .. ``stop``; one that can no longer be read is left out."""
        while self._recent and self._recent[0][0] < start:
            self._recent.popleft()
        at_hand = bool(self._recent) and self._recent[0][0] == start
        found = []
        for number in range(start, stop):
            if at_hand and self._recent and self._recent[0][0] == number:
                found.append(self._recent.popleft()[1])
                continue
            record = self._held.get(number)
            if record is None:
                record = self._reader.at(self._offsets[number], self._lengths[number])
            if record is not None:
                found.append(record)
        return found

    def gap(self, number: int) -> float:
        """Seconds between a record and the one before; NaN where either has no time."""
        return self._times[number] - self._times[number - 1] if number else float("nan")

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._reader.close()
