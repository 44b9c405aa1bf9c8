"""What a run that is gone left behind: requests for its records, answered from its trace.

A run that ends or is killed cannot send again what was lost on the way. Its trace, on its own
machine, holds it all the same.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probe.backlog import PART_BYTES
from probe.schema import (
    Backlog,
    BacklogPart,
    Record,
    SchemaError,
    decode_request,
    encode,
)
from probe.trace import TraceError, load
from probe.transport import Arrival, Transport

LARGEST_TRACE = 256 * 1024 * 1024
"""Bytes of trace that are read through; a larger one would make a person wait."""


class Remains:
    """The records of the trace at ``path``; none where it cannot be read or is very large."""

    def __init__(self, path: str) -> None:
        self._records: list[Record] = []
        try:
            if path and Path(path).stat().st_size <= LARGEST_TRACE:
                self._records = sorted(load(Path(path)), key=lambda record: record.seq)
        except (OSError, TraceError):
            pass  # no trace to fall back on

    def part(self, first: int, last: int | None, limit_bytes: int = PART_BYTES) -> BacklogPart:
        """As :meth:`probe.backlog.RecordRing.part`."""
        records: list[bytes] = []
        size, following = 0, max(0, first)
        for at in range(bisect.bisect_left(self._records, first, key=_seq), len(self._records)):
            record = self._records[at]
            if last is not None and record.seq >= last:
                break
            if size >= limit_bytes:
                return BacklogPart(records=tuple(records), next_seq=following, more=True)
            records.append(encode(record))
            size += len(records[-1])
            following = record.seq + 1
        return BacklogPart(records=tuple(records), next_seq=following, more=False)


def _seq(record: Record) -> int:
    return record.seq


class OutlivingTransport:
    """``transport`` to a run of this machine, that answers from ``trace`` once the run is gone."""

    def __init__(self, transport: Transport, trace: str, gone: Callable[[], bool]) -> None:
        self._transport, self._trace, self._gone = transport, trace, gone
        self._remains: Remains | None = None
        self._answers: deque[Arrival] = deque()

    @property
    def closed(self) -> str | None:
        """As of the transport within."""
        return self._transport.closed

    def pollables(self) -> tuple[Any, ...]:
        return self._transport.pollables()

    def receive(self, limit: int) -> list[Arrival]:
        arrivals = self._transport.receive(limit)
        # What the run itself still sent comes first: the trace is asked for what is missing then.
        while self._answers and len(arrivals) < limit:
            arrivals.append(self._answers.popleft())
        return arrivals

    def request(self, number: bytes, payload: bytes) -> None:
        wanted = self._wanted(payload)
        if wanted is None or not self._gone():
            self._transport.request(number, payload)
            return
        if self._remains is None:
            self._remains = Remains(self._trace)
        self._answers.append((number, encode(self._remains.part(wanted.first, wanted.last))))

    def close(self) -> None:
        self._transport.close()

    @staticmethod
    def _wanted(payload: bytes) -> Backlog | None:
        try:
            request = decode_request(payload)
        except SchemaError:
            return None
        return request if isinstance(request, Backlog) else None
