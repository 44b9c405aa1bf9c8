"""The run's stream of records on its way out: numbered, stored, kept, published."""

from __future__ import annotations

import time

from probe.backlog import RecordRing
from probe.schema import MAX_MESSAGE_BYTES, Event, Frame, Header, Record, SchemaError, encode
from probe.sockets import RunSockets
from probe.trace_writer import TraceWriter


class Stream:
    """Gives each record the next number and hands it on, to the trace first. One thread.

    ``trace`` and ``sockets`` are set where there are any.
    """

    def __init__(self, backlog_bytes: int) -> None:
        self.ring = RecordRing(backlog_bytes)
        self.header: Header | None = None
        """The latest header that passed."""
        self.trace: TraceWriter | None = None
        self.sockets: RunSockets | None = None
        self._noted_thinning = False

    def take(self, record: Record) -> None:
        """Number the record, whatever number it has, store, keep and publish it.

        Raises TypeError for what is no record and SchemaError for one that no reader would accept;
        neither uses a number.
        """
        if not isinstance(record, Record):
            raise TypeError(f"a draft returned {type(record).__name__}, which is not a record")
        record.seq = self.ring.next_seq
        payload = encode(record)
        if len(payload) > MAX_MESSAGE_BYTES:
            raise SchemaError(
                f"a record of {len(payload)} bytes is over the limit of {MAX_MESSAGE_BYTES}: "
                "it was left out"
            )
        if isinstance(record, Header):
            self.header = record
        if self.trace is not None:
            self.trace.append(payload, thin=isinstance(record, Frame))
        self.ring.append(payload, header=isinstance(record, Header))
        if self.sockets is not None:
            self.sockets.publish(payload)
        if self.trace is not None and self.trace.thinned and not self._noted_thinning:
            self._noted_thinning = True
            self.take(_thinning(self.trace, record))

    def close(self, linger_ms: int) -> None:
        """Close the trace and the sockets; what is queued has ``linger_ms`` to leave."""
        try:
            if self.trace is not None:
                self.trace.close()
        finally:
            if self.sockets is not None:
                self.sockets.close(linger_ms)


def _thinning(trace: TraceWriter, record: Record) -> Event:
    """Tells readers of the trace why its frames lie further apart from here on."""
    return Event(
        seq=0,
        rank=getattr(record, "rank", 0),
        step=getattr(record, "step", 0),
        time=time.time(),
        kind="note",
        text=f"the trace has reached {trace.size} bytes: of the frames to come few are stored",
    )
