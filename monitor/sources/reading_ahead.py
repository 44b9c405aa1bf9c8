"""A model that takes in a long trace beside the screen's, and pictures of it for the screen.

Handing over every record costs more than reading it, for the two threads then wait for each other.
So the screen is given what the model holds, now and then, as it is when a trace is opened again.
The model takes in one stretch while the next is read from the file: numpy does most of the one, and
lets go of the interpreter meanwhile. Of a very long trace another process reads the later part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from monitor.joining import join
from monitor.model_state import Arrays, pack, unpack
from monitor.run_model import RunModel
from monitor.sources.later_part import LaterPart, Part
from monitor.sources.record_store import RecordStore
from probe.schema import Record, RecordView

SHOWN_EVERY = 2.0
"""Seconds from one picture of the way to the next: drawing one holds up the reading for 0.2 s."""
_AT_ONCE = 1000


class ReadingAhead:
    """Begins with what the screen holds: the first ``upto`` records."""

    def __init__(self, store: RecordStore, upto: int, clock: Callable[[], float]) -> None:
        self._model = RunModel()
        self._store = store
        self._upto = upto
        self._caught_up = 0
        self._clock = clock
        self._shown = clock()
        self.beyond = False
        """It holds more than the screen."""
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="reading-ahead")
        self._under_way: Future[None] | None = None
        self._later: LaterPart | None = None

    def share(self, path: Path) -> None:
        """Have the later part of the trace read by another process, where that saves time."""
        self._later = LaterPart.begun(path, self._store.end, self._store.size)
        if self._later is not None:
            self._store.stop_at(self._later.start)

    def catch_up(self) -> bool:
        """Take in some more of what the screen holds; True once that is all there."""
        if self._caught_up < self._upto:
            stop = min(self._caught_up + _AT_ONCE, self._upto)
            self._model.read(self._store.between(self._caught_up, stop))
            self._caught_up = stop
        return self._caught_up == self._upto

    def take(self, records: Sequence[Record | RecordView]) -> None:
        """Take in what comes next, once what came before it is taken in."""
        self._finish()
        self._under_way = self._beside.submit(self._model.read, records)
        self.beyond = True

    def join_later(self, goal: int) -> bool:
        """Go on beyond the part that is read here: with the later one, where it was read and lies
        before the step ``goal``. False while that is still being read."""
        if self._later is None or self._later.pending:
            return self._later is None
        self._finish()
        part = self._later.part()
        if part is not None and self._fits(part, goal):
            later = RunModel()
            unpack(later, part.arrays)
            join(self._model, later)
            self._store.resume(part.end, part.arrays)
            self._store.count_damaged(part.damaged)
        else:
            self._store.resume(self._store.end)
        self._leave_later()
        return True

    def _fits(self, part: Part, goal: int) -> bool:
        """It begins where this one ends, under the same header, and none of it is too much."""
        steps = part.arrays["store.steps"]
        header = self._model.header
        one = header is not None and header == self._store.first_header
        return one and part.start == self._store.end and len(steps) > 0 and int(steps[-1]) < goal

    def _leave_later(self) -> None:
        later, self._later = self._later, None
        if later is not None:
            later.close()

    def _finish(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    @property
    def due(self) -> bool:
        """It is time for a picture."""
        return self._clock() >= self._shown + SHOWN_EVERY

    def overview(self) -> Arrays | None:
        """All that was read so far; None before a header."""
        self._finish()
        self._shown = self._clock()
        return None if self._model.header is None else pack(self._model)

    def close(self) -> None:
        """It is not wanted any more."""
        if self._later is not None:
            self._store.resume(self._store.end)
            self._leave_later()
        self._beside.shutdown(wait=False)
