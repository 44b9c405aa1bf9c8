"""A saved trace, read as if the run were happening: with a clock that can be stopped and turned."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from monitor.model_state import Arrays
from monitor.sources import overview_file
from monitor.sources.reading_ahead import ReadingAhead
from monitor.sources.record_store import RecordStore
from monitor.sources.source import Batch, Position, SourceError
from probe.schema import Control, Record, RecordView
from probe.trace import TraceError

LONGEST_GAP = 1.0
"""Seconds of recorded time; a longer pause of the run (a night, a breakpoint) replays as this."""
FASTEST = 1e6
SLOWEST = 0.05
FOLLOW_SECONDS = 0.5
"""How often a trace is looked at again for what was written since."""
LOAD_CHUNK = 1000
"""Records that are read in one go."""
AHEAD_CHUNK = 4000
"""The same on the way through a long trace: numpy takes many at once, and a key waits 0.03 s."""
_BREATH = 0.0002
"""Seconds between two stretches of a long trace, for a key that waits for the lock."""
RETELL_AFTER = 1.0
"""Seconds that a long trace has for being drawn before the diagnosis goes over its frames."""
RETOLD_FRAMES = 4000
"""Frames of a long trace that the diagnosis goes over: more would wait longer than they tell."""


class ReplaySource:
    """A :class:`monitor.sources.source.Replayable` over a trace file, which may still grow."""

    def __init__(
        self,
        path: Path,
        *,
        speed: float = 1.0,
        playing: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises :class:`SourceError` where the file is not a trace with a run in it."""
        self.title = path.name
        self._clock = clock
        self._playing = playing
        self._speed = min(max(speed, SLOWEST), FASTEST)
        self._changed = threading.Condition()
        self._next = 0
        self._target: int | None = None
        """Deliver up to this record at once: a jump or a step is under way."""
        self._jump: int | None = None
        """A jump to a step that was not carried out yet: the file may not be read that far."""
        self._credit = 0.0
        """Seconds of recorded time that may be delivered."""
        self._last = clock()
        self._looked = float("-inf")
        self._tail = False
        """Stand at the end, and go on with it while the file grows."""
        self._complete = self._told_end = self._closed = False
        self._failed = ""
        self._path = path
        self._overview: Mapping[str, Any] | None = None
        """Kept when this trace was read before; given out if it is opened at its end."""
        self._long = False
        """Read for its overview first, for the diagnosis afterwards."""
        self._known = 0
        """Records that were given out for the model alone: before this one..."""
        self._told = 0
        """... and from this one on, the diagnosis has yet to be told of them."""
        self._retell = 0.0
        """From when on it is."""
        self._ahead: ReadingAhead | None = None
        """While it is on the way; the screen has yet to be given what it holds."""
        self._arrived: tuple[int, Arrays] = (0, {})  # up to which record, and what it held then
        self._untold: list[int] | None = None
        """Of these the numbers that it will be told of; None: not chosen yet."""
        try:
            self._records = RecordStore(path)
            self._long = self._records.size >= overview_file.LEAST_BYTES
            kept = overview_file.load(path)
            if kept is not None:
                self._records.resume(*kept)
                self._overview = kept[1]
            else:
                self._load(1)
        except TraceError as error:
            raise SourceError(str(error)) from None
        if not len(self._records):
            self._records.close()
            raise SourceError(f"{path}: empty: the run ended before it recorded anything")
        self._position = self._where()

    def read(self, limit: int = 500, timeout: float = 0.25) -> Batch:
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                batch = self._read(limit, deadline)
            if batch is not None:
                return batch
            time.sleep(_BREATH)

    def _read(self, limit: int, deadline: float) -> Batch | None:
        """A batch; None where there is something to do before the next, but first a moment for
        whoever waits for the lock."""
        while not self._closed:
            if self._on_the_way() or (self._ahead is not None and self._ahead.beyond):
                return self._read_ahead()
            self._leave_ahead()
            self._follow()
            if self._next == 0 and self._at_end_at_once():
                return self._moved(Batch(link="replay", overview=self._overview))
            known = self._retold(limit)
            if known:
                return Batch(tuple(known), link="replay", known=True)
            due = [] if self._told < self._known else self._due(limit)
            text = self._text()
            remaining = deadline - time.monotonic()
            if due or text or remaining <= 0:
                return self._moved(self._batch(due, text))
            # While the file is still being read there is no reason to wait. At rest only a
            # key brings something to do, and that wakes.
            if self._complete:
                at_rest = not self._playing or self._next >= len(self._records)
                self._changed.wait(remaining if at_rest else min(remaining, 0.05))
        return Batch(link="replay")

    def remember(self, packed: Callable[[], Arrays]) -> Callable[[], None] | None:
        """What keeps the overview for the next time, to be called in a thread.

        ``packed`` gives the arrays of a model that has read all there is. None where there is no
        need, or where the file was not read to its end yet.
        """
        with self._changed:
            small = self._records.end < overview_file.LEAST_BYTES
            if small or self._overview is not None or not self._complete:
                return None
            # The screen may have yet to take in what it was given on arrival.
            upto, overview = self._arrived
            self._overview = overview if upto == len(self._records) else packed()
            self._arrived = (0, {})
            arrays = self._records.arrays() | self._overview
            return partial(overview_file.save, self._path, self._records.end, arrays)

    def send(self, control: Control) -> str:
        return f"This is a saved trace: there is no training here to {control.action}."

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._leave_ahead()
            self._records.close()
            self._changed.notify_all()

    def position(self) -> Position:
        """As it was left last: the screen, which asks often, never waits for the file."""
        return self._position

    def _where(self) -> Position:
        shown = bisect_left(self._records.frames, self._next)
        return Position(
            record=self._next,
            records=len(self._records),
            step=self._records.steps[shown - 1] if shown else 0,
            last_step=self._records.steps[-1] if self._records.steps else 0,
            playing=self._playing,
            speed=self._speed,
            seeking=self._jump is not None or self._target is not None,
        )

    def _moved(self, batch: Batch) -> Batch:
        self._position = self._where()
        return batch

    def _turned(self) -> None:
        """Something else is wanted of it."""
        self._position = self._where()
        self._changed.notify_all()

    def play(self, playing: bool) -> None:
        with self._changed:
            self._playing = playing
            self._tail = False
            self._credit = 0.0
            self._last = self._clock()
            self._turned()

    def set_speed(self, speed: float) -> None:
        """Clamped to what can be played; anything that is no number is left out."""
        if math.isnan(speed):
            return
        with self._changed:
            self._speed = min(max(speed, SLOWEST), FASTEST)
            self._turned()

    def jump(self, step: int) -> None:
        with self._changed:
            self._jump, self._tail = step, False
            self._turned()

    def step(self, frames: int) -> None:
        with self._changed:
            self._tail = False
            self._go_to_frame(bisect_left(self._records.frames, self._next) - 1 + frames)
            self._turned()

    def _at_end_at_once(self) -> bool:
        """The end is wanted, and how it looks there is known."""
        steps = self._records.steps
        if self._overview is None or self._jump is None or not steps or self._jump <= steps[-1]:
            return False
        self._known = self._next = len(self._records)
        self._jump, self._tail = None, True
        self._retell = self._clock() + RETELL_AFTER
        return True

    def _on_the_way(self) -> bool:
        """A long trace is sent beyond what was read, and that was all given out."""
        if not self._long or self._jump is None or self._complete:
            return False
        steps = self._records.steps
        return self._next == len(self._records) and (not steps or steps[-1] < self._jump)

    def _read_ahead(self) -> Batch | None:
        """Read on, up to the goal, for the model alone; the batch is a picture of it, where one is
        due: now and then, and on arrival."""
        if self._ahead is None:
            self._ahead = ReadingAhead(self._records, self._next, self._clock)
            self._ahead.share(self._path)
        if not self._ahead.catch_up():
            return None
        if self._told == self._known:
            self._told = self._known = self._next
        if self._on_the_way() and not self._records.at_bound:
            self._ahead.take(self._next_records())
        if self._records.at_bound and self._jump is not None and self._on_the_way():
            if not self._ahead.join_later(self._jump):
                return None
            self._known = self._next = len(self._records)
        arrived, text = not self._on_the_way(), self._text()
        if not (arrived or text or self._ahead.due):
            self._position = self._where()
            return None
        overview = self._ahead.overview()
        if arrived:
            self._leave_ahead()
            self._arrived = (self._next, overview or {})
        ignored = self._records.damaged
        return self._moved(Batch(link="replay", overview=overview, text=text, ignored=ignored))

    def _leave_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def _next_records(self) -> list[RecordView]:
        """What comes next on the way."""
        start = self._next
        records = self._loaded(AHEAD_CHUNK)
        steps, frames = self._records.steps, self._records.frames
        stop = len(self._records)
        if self._jump is not None and steps and steps[-1] >= self._jump:
            stop = max(start, frames[bisect_left(steps, self._jump)] + 1)
            self._jump = None
        elif self._complete:
            self._jump, self._tail = None, True
        self._known = self._next = stop
        self._untold = None
        self._retell = self._clock() + RETELL_AFTER
        return records[: stop - start]

    def _retold(self, limit: int) -> list[Record]:
        """What the diagnosis is told of the records it has not seen, when there is time."""
        wanted = self._target is not None or self._jump is not None or self._playing
        if self._told == self._known or not (wanted or self._clock() >= self._retell):
            return []
        if self._untold is None:
            self._untold = self._records.thinned(self._told, self._known, RETOLD_FRAMES)
        numbers, self._untold = self._untold[:limit], self._untold[limit:]
        if not self._untold:
            self._told, self._untold = self._known, None
        return self._records.numbered(numbers)

    def _go_to_frame(self, number: int) -> None:
        """Show everything up to this frame (counted from 0), whichever way that lies."""
        if not self._records.frames:
            return
        target = self._records.frames[min(max(number, 0), len(self._records.frames) - 1)] + 1
        if target < self._next:
            self._next = 0
            self._known = self._told = 0
            self._untold = None
        self._target = target
        self._credit = 0.0
        self._told_end = False

    def _due(self, limit: int) -> list[Record]:
        now = self._clock()
        elapsed, self._last = now - self._last, now
        if self._jump is not None and (
            self._complete or (self._records.steps and self._records.steps[-1] >= self._jump)
        ):
            steps = self._records.steps
            self._tail = self._complete and (not steps or self._jump > steps[-1])
            self._go_to_frame(bisect_left(self._records.steps, self._jump))
            self._jump = None
        start = self._next
        if self._jump is not None:
            # Still reading. What lies before the goal is wanted in any case.
            if start < len(self._records):
                self._next = min(len(self._records), start + limit)
                return self._records.between(start, self._next)
            return []
        if self._target is not None:
            self._next = min(self._target, start + limit)
            if self._next >= self._target:
                self._target = None
        elif self._tail:
            self._next = min(len(self._records), start + limit)
        elif self._playing:
            self._credit += elapsed * self._speed
            self._next = self._affordable(start, limit)
        elif start == 0:
            self._next = 1  # paused from the start: the header alone lets the screen be drawn
        return self._records.between(start, self._next)

    def _affordable(self, start: int, limit: int) -> int:
        at = start
        while at < len(self._records) and at - start < limit:
            gap = self._gap(at)
            if gap > self._credit:
                return at
            self._credit -= gap
            at += 1
        if at == len(self._records):
            self._credit = 0.0  # waiting at the end must not save up time for what comes later
        return at

    def _gap(self, index: int) -> float:
        gap = self._records.gap(index)
        return 0.0 if math.isnan(gap) else min(max(gap, 0.0), LONGEST_GAP)

    def _batch(self, records: list[Record], text: str) -> Batch:
        return Batch(
            records=tuple(records), link="replay", text=text, ignored=self._records.damaged
        )

    def _text(self) -> str:
        if self._failed:
            text, self._failed, self._told_end = self._failed, "", True
            return text
        if self._told_end or not self._complete or self._next < len(self._records):
            return ""
        self._told_end = True
        if self._records.ended:
            return "End of the trace."
        return (
            "The trace stops here without an end: the run was killed or is still writing; what it "
            "adds will be shown."
        )

    def _follow(self) -> None:
        if self._complete and self._clock() - self._looked < FOLLOW_SECONDS:
            return
        if self._jump is not None and self._next < len(self._records) and not self._complete:
            return  # what was read is given out first
        self._loaded(LOAD_CHUNK)

    def _loaded(self, limit: int) -> list[RecordView]:
        """Read on; what cannot be read is told, and ends the trace."""
        try:
            return self._load(limit)
        except TraceError as error:
            self._failed = str(error)
            self._complete = True
            return []
        finally:
            self._looked = self._clock()

    def _load(self, limit: int) -> list[RecordView]:
        found = self._records.load(limit)
        if found:
            self._told_end = False
        self._complete = len(found) < limit and not self._records.at_bound
        return found
