"""The thread that reads a source, and the bounded queue between it and the screen."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from monitor.sources.source import Batch, Source
from probe.schema import Record

QUEUE_RECORDS = 20_000
"""Records held for the screen before the reader waits for it to catch up."""
_REST_SECONDS = 0.05


class Reader:
    """Reads until stopped. ``on_records`` is called in the thread, with every batch's records."""

    def __init__(self, source: Source, on_records: Callable[[Sequence[Record]], None]) -> None:
        self._source = source
        self._on_records = on_records
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

    def drain(self, limit: int = 2000) -> list[Batch]:
        """Batches read so far, in order, until they hold ``limit`` records."""
        batches, records = [], 0
        with self._changed:
            while self._queue and records < limit:
                batch = self._queue.popleft()
                records += len(batch.records)
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
            if not batch.records:
                # An ended source returns at once: do not spin.
                self._stopping.wait(_REST_SECONDS)

    def _put(self, batch: Batch) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._held < QUEUE_RECORDS or self._stopping.is_set(), timeout=None
            )
            if batch.records or not self._queue or self._queue[-1].records:
                self._queue.append(batch)
            else:
                self._queue[-1] = batch  # only the newest state counts
            self._held += len(batch.records)
