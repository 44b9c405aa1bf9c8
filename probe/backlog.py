"""The newest records of a stream, held in memory for monitors that join late or lost some."""

from __future__ import annotations

from probe.schema import BacklogPart

DEFAULT_CAP_BYTES = 64 * 1024 * 1024
PART_BYTES = 1024 * 1024
_OBJECT_BYTES = 40
"""What a bytes object takes beside its content; many tiny records must not escape the cap."""


class RecordRing:
    """Encoded records with consecutive sequence numbers; the oldest go when the cap is reached.

    The latest header is kept whatever its age, since no record can be read without it.
    """

    def __init__(self, cap_bytes: int = DEFAULT_CAP_BYTES) -> None:
        self.cap_bytes = cap_bytes
        self.next_seq = 0
        self._header: tuple[int, bytes] | None = None
        self._payloads: list[bytes] = []
        self._start = 0
        """Index of the oldest record held; the entries before it are emptied."""
        self._bytes = 0

    @property
    def first_seq(self) -> int:
        """Sequence number of the oldest record held, the header that is always kept included."""
        oldest = self._oldest
        return oldest if self._header is None else min(oldest, self._header[0])

    @property
    def _oldest(self) -> int:
        return self.next_seq - (len(self._payloads) - self._start)

    def append(self, payload: bytes, header: bool = False) -> None:
        """Hold the record numbered :attr:`next_seq`."""
        if header:
            self._header = (self.next_seq, payload)
        self._payloads.append(payload)
        self.next_seq += 1
        self._bytes += len(payload) + _OBJECT_BYTES
        while self._bytes > self.cap_bytes and self._start < len(self._payloads):
            self._bytes -= len(self._payloads[self._start]) + _OBJECT_BYTES
            self._payloads[self._start] = b""
            self._start += 1
        if self._start > 1024 and self._start > len(self._payloads) // 2:
            del self._payloads[: self._start]
            self._start = 0

    def part(self, first: int, last: int | None, limit_bytes: int = PART_BYTES) -> BacklogPart:
        """Records with ``first <= seq < last`` from the oldest on, up to about ``limit_bytes``.

        At least one record if any is held in that span, however large. Records no longer held are
        skipped.
        """
        end = self.next_seq if last is None else max(0, min(last, self.next_seq))
        first = max(0, first)
        records: list[bytes] = []
        size = 0
        oldest = self._oldest
        if self._header is not None and first <= self._header[0] < min(oldest, end):
            records.append(self._header[1])
            size += len(self._header[1])
        seq = max(first, oldest)
        while seq < end:
            payload = self._payloads[self._start + seq - oldest]
            if records and size + len(payload) > limit_bytes:
                break
            records.append(payload)
            size += len(payload) + _OBJECT_BYTES
            seq += 1
        return BacklogPart(
            records=tuple(records), next_seq=max(first, min(seq, end)), more=seq < end
        )
