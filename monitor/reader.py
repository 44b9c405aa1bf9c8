"""The thread that reads a source, and the bounded queue between it and the screen."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from monitor.sources.source import Batch, Source
from probe.schema import Record

QUEUE_RECORDS = 20_000
"""Records held for the screen before the reader waits for it to catch up."""
JOINED_RECORDS = 200
"""Records that batches which came one after the other are put together to, at most."""
_REST_SECONDS = 0.05


class Reader:
    """Reads until stopped.

    Called in the thread: ``on_records`` with every batch's records, ``on_news`` when a batch
    brought records or another state of the run. A batch like the one before is no news: a run that
    ended costs nothing on the screen.
    """

    def __init__(
        self,
        source: Source,
        on_records: Callable[[Sequence[Record]], None],
        on_news: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._on_records = on_records
        self._on_news = on_news
        self._state: object = None
        self._queue: deque[Batch] = deque()
        self._held = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Stop reading and close the source."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._source.close()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def waiting(self) -> bool:
        """More was read than the last drain took."""
        with self._changed:
            return self._held > 0

    def drain(self, limit: int = 2000) -> list[Batch]:
        """Batches read so far, in order, until they hold ``limit`` records."""
        batches, records = [], 0
        with self._changed:
            while self._queue and records < limit:
                batch = self._queue.popleft()
                records += batch.size
                batches.append(batch)
            self._held -= records
            self._changed.notify_all()
        return batches

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                batch = self._source.read()
            except Exception as error:  # a source must not raise: the screen stays, and says why
                batch = Batch(link="lost", text=f"reading stopped: {error}")
                self._stopping.set()
            self._put(batch)
            self._on_records(batch.records)
            # As text, since NaN differs from itself.
            state = repr((batch.link, batch.state, batch.text, batch.overhead, batch.ignored))
            if _tells(batch) or state != self._state:
                self._state = state
                self._on_news()
            if not batch.size:
                # An ended source returns at once: do not spin.
                self._stopping.wait(_REST_SECONDS)

    def _put(self, batch: Batch) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._held < QUEUE_RECORDS or self._stopping.is_set(), timeout=None
            )
            last = self._queue[-1] if self._queue else None
            joined = _joined(last, batch) if last is not None else None
            if joined is not None:
                self._queue[-1] = joined
            elif _tells(batch) or last is None or _tells(last):
                self._queue.append(batch)
            else:
                # Only the newest state counts; what is wrong with a trace is said once.
                kept = last.text if batch.link == last.link == "replay" else ""
                self._queue[-1] = replace(batch, text=batch.text or kept)
            self._held += batch.size


def _joined(last: Batch, batch: Batch) -> Batch | None:
    """Two batches as one, where they say the same of the run and are small: taking in many frames
    at once costs little more than taking in a few."""
    if not (last.records and batch.records) or last.size + batch.size > JOINED_RECORDS:
        return None
    first, second = (replace(one, records=()) for one in (last, batch))
    if repr(first) != repr(second):  # as text, since NaN differs from itself
        return None
    return replace(batch, records=last.records + batch.records)


def _tells(batch: Batch) -> bool:
    """It brings more than the state of the run."""
    return batch.size > 0 or batch.overview is not None
