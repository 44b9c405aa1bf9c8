"""A model that reads a long trace in the source's own thread, and pictures of it for the screen.

Handing over every record costs more than reading it, for the two threads then wait for each other.
So the screen is given what the model holds, now and then, as it is when a trace is opened again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from monitor.model_state import Arrays, pack
from monitor.run_model import RunModel
from monitor.sources.record_store import RecordStore
from probe.schema import Record, RecordView

SHOWN_EVERY = 1.5
"""Seconds from one picture of the way to the next: drawing one holds up the reading for 0.2 s."""
_AT_ONCE = 1000


class ReadingAhead:
    """Begins with what the screen holds: the first ``upto`` records."""

    def __init__(self, store: RecordStore, upto: int, clock: Callable[[], float]) -> None:
        self._model = RunModel()
        self._clock = clock
        self._shown = clock()
        for start in range(0, upto, _AT_ONCE):
            self.take(store.between(start, min(start + _AT_ONCE, upto)))

    def take(self, records: Sequence[Record | RecordView]) -> None:
        """Take in what comes next."""
        self._model.read(records)

    @property
    def due(self) -> bool:
        """It is time for a picture."""
        return self._clock() >= self._shown + SHOWN_EVERY

    def overview(self) -> Arrays | None:
        """All that was read so far; None before a header."""
        self._shown = self._clock()
        return None if self._model.header is None else pack(self._model)
