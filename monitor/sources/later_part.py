"""The later part of a long trace, read by a second process while this one reads the first.

One interpreter cannot check and decode on two cores. The other process knows nothing of what came
before its part but the header, gives its model and where its records lie to its standard output,
and ends; :meth:`monitor.sources.reading_ahead.ReadingAhead.join_later` puts the parts together.
"""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monitor.model_state import Arrays, pack
from monitor.run_model import RunModel
from monitor.sources.record_store import RecordStore
from probe.schema import Header
from probe.trace import TraceError, TraceReader

LEAST_BYTES = 128 * 1024 * 1024
"""A part smaller than half of this is read while the other process starts."""
SHARE = 0.48
"""Of the bytes to read, for the process that has yet to start."""
_RECORDS = 4000


@dataclass(frozen=True)
class Part:
    """What was read from the record at offset ``start`` up to ``end``, bytes."""

    start: int
    end: int
    damaged: int
    arrays: Arrays
    """Of :meth:`RecordStore.arrays` and :func:`monitor.model_state.pack`."""


class LaterPart:
    """A process that reads a trace from the record at offset ``start`` to its present end."""

    def __init__(self, path: Path, start: int) -> None:
        """Raises OSError where no process can be started."""
        self.start = start
        command = [sys.executable, "-m", "monitor.sources.later_part", str(path), str(start)]
        nothing = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing
        )
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="later-part")
        self._told: Future[tuple[bytes, bytes]] = self._beside.submit(self._process.communicate)

    @classmethod
    def begun(cls, path: Path, first: int, size: int) -> LaterPart | None:
        """Of the bytes ``first`` .. ``size`` of a trace; None where sharing gains nothing."""
        if size - first < LEAST_BYTES or (os.cpu_count() or 1) < 2 or not sys.executable:
            return None
        try:
            with TraceReader(path) as reader:
                start = reader.seek(size - int(SHARE * (size - first)))
            return cls(path, start) if start is not None else None
        except (TraceError, OSError):
            return None

    @property
    def pending(self) -> bool:
        """It is still being read."""
        return not self._told.done()

    def part(self) -> Part | None:
        """What was read, once it is; None where that failed."""
        out, _ = self._told.result()
        try:
            with np.load(io.BytesIO(out), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            end, damaged = arrays.pop("part").tolist()
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return Part(self.start, end, damaged, arrays)

    def close(self) -> None:
        """It is not wanted, or was taken in."""
        if self._process.poll() is None:
            self._process.kill()
        self._beside.shutdown(wait=False)


def read(path: Path, start: int) -> Arrays | None:
    """Of the records from offset ``start`` on what :class:`Part` holds; None where they stand under
    another header than the trace's first. Raises :class:`TraceError`."""
    with TraceReader(path) as reader:
        begins_with = reader.records(1)
        size = reader.size
    if not begins_with or not isinstance(header := begins_with[0], Header):
        return None
    model, store = RunModel(), RecordStore(path)
    model.read([header])
    store.resume(start)
    while store.end < size and (records := store.load(_RECORDS)):
        if any(isinstance(record, Header) for record in records):
            return None
        model.read(records)
    part = np.array([store.end, store.damaged], np.int64)
    store.close()
    return store.arrays() | pack(model) | {"part": part}


def main() -> int:
    """For the other process: path and offset are its arguments."""
    gc.disable()  # it lives for a second, and records hold no cycles
    try:
        arrays = read(Path(sys.argv[1]), int(sys.argv[2]))
        if arrays is None:
            return 1
        out = io.BytesIO()
        np.savez(out, **arrays)  # type: ignore[arg-type]
        sys.stdout.buffer.write(out.getbuffer())
        sys.stdout.buffer.flush()
    except (TraceError, OSError, ValueError):
        return 1  # who asked reads it itself, and says what is wrong
    return 0


if __name__ == "__main__":
    sys.exit(main())
