"""Reads traces: whole ones, growing ones, torn ones and damaged ones."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np

from probe.schema import (
    MAX_MESSAGE_BYTES,
    Record,
    RecordView,
    SchemaError,
    VersionError,
    decode_record,
    decode_records,
    decode_view,
    decode_views,
)
from probe.trace_format import (
    CHECKSUM,
    FORMAT_VERSION,
    LENGTH,
    MASK,
    PREFIX,
    TraceError,
    masked_checksum,
    preamble,
)

_CHUNK = 1024 * 1024
_PREAMBLE_LIMIT = 64
_KNOWN_LENGTHS = 4096

Decoded = TypeVar("Decoded", Record, RecordView)


@dataclass
class Payloads:
    """Payloads and their offsets in the file, bytes. They are views of what was read."""

    offsets: list[int] = field(default_factory=list)
    payloads: list[bytes | memoryview] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass
class Placed(Generic[Decoded]):
    """Records and the places of their payloads: offset and length, bytes."""

    offsets: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    records: list[Decoded] = field(default_factory=list)


class TraceReader:
    """Reads a trace from its start and goes on where it stopped, so that a growing one is followed.

    A record that is not complete yet (a torn tail, or one being written) is left for the next
    read. Damage in the middle is counted in :attr:`damaged` and skipped: by the record's length
    where that is intact, else by searching the next place that reads as a record.

    Raises :class:`TraceError` where the file is not a trace this version can read.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.damaged = 0
        """Damaged places passed so far."""
        self._decoded = 0
        self._buffer = b""
        self._at = 0
        """Position of the next record within the buffer."""
        self._base = 0
        """Offset of the buffer's first byte in the file."""
        self._searching = False
        """True between a damaged length and the next intact record."""
        self._until: int | None = None
        self._lengths: dict[bytes, int] = {}
        """What the first bytes of records say that were seen to be intact: most are alike."""
        self._descriptor = _open(self.path)
        try:
            self._read_preamble()
        except BaseException:
            self.close()
            raise

    @property
    def offset(self) -> int:
        """Offset in the file, bytes, up to which records were read."""
        return self._base + self._at

    @property
    def until(self) -> int | None:
        """Offset, of a record, at which the file is taken to end; None: where it does."""
        return self._until

    @until.setter
    def until(self, offset: int | None) -> None:
        self._until = offset
        # What the buffer holds may lie beyond it.
        self._base, self._at, self._buffer = self.offset, 0, b""

    @property
    def size(self) -> int:
        """Bytes of the file as it stands; 0 once closed."""
        return 0 if self._descriptor is None else os.fstat(self._descriptor).st_size

    def read(self, limit: int = 1000) -> list[bytes]:
        """Up to ``limit`` further payloads; an empty list at the present end of the file."""
        return [bytes(payload) for payload in self._payloads(limit).payloads]

    def records(self, limit: int = 1000) -> list[Record]:
        """Like :meth:`read`, decoded; payloads that cannot be decoded count as damaged.

        An empty list means the present end. Raises :class:`TraceError` where the first record
        or a header was written by another version.
        """
        return self._decoded_payloads(limit, decode_record, decode_records).records

    def resume(self, offset: int) -> None:
        """Go on from an :attr:`offset` that a reader of this file had before."""
        self._base, self._at, self._buffer = offset, 0, b""
        self._searching = False
        self._decoded = max(self._decoded, 1)

    def seek(self, offset: int) -> int | None:
        """Go on from the first intact record that begins at ``offset`` or after it, and tell where
        that is; None where there is none."""
        self.resume(max(0, offset - 1))
        self._searching = True
        found = self._payloads(1)
        if not len(found):
            return None
        start = found.offsets[0] - LENGTH.size
        self.resume(start)
        return start

    def placed(self, limit: int = 1000) -> Placed[RecordView]:
        """Like :meth:`records`, with their places; a frame as a view of what was read."""
        return self._decoded_payloads(limit, decode_view, decode_views)

    def at(self, offset: int, length: int) -> Record | None:
        """The record at a place that :meth:`placed` told; None where the file changed there."""
        if self._descriptor is None:
            return None
        try:
            return decode_record(os.pread(self._descriptor, length, offset))
        except (OSError, SchemaError):
            return None

    def __iter__(self) -> Iterator[Record]:
        """The records from here to the present end of the file."""
        while records := self.records():
            yield from records

    def close(self) -> None:
        """Close the file. May be called twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> TraceReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _decoded_payloads(
        self,
        limit: int,
        decode: Callable[[bytes | memoryview], Decoded],
        decode_all: Callable[[Sequence[bytes | memoryview]], list[Decoded]],
    ) -> Placed[Decoded]:
        found: Placed[Decoded] = Placed()
        while len(found.records) < limit:
            read = self._payloads(limit - len(found.records))
            if not len(read):
                break
            try:
                found.records += decode_all(read.payloads)
            except SchemaError:
                read = self._decoded_singly(read, decode, found.records)
            found.offsets += read.offsets
            found.lengths += map(len, read.payloads)
        self._decoded += len(found.records)
        return found

    def _decoded_singly(
        self,
        read: Payloads,
        decode: Callable[[bytes | memoryview], Decoded],
        records: list[Decoded],
    ) -> Payloads:
        """Decode one by one, for one of them is no record; those that are."""
        kept = Payloads()
        for offset, payload in zip(read.offsets, read.payloads, strict=True):
            try:
                records.append(decode(payload))
            except SchemaError as error:
                if not (self._decoded or records) or isinstance(error, VersionError):
                    # Its checksum holds, so it was written like this: by another version.
                    raise TraceError(f"{self.path}: {error}") from None
                self.damaged += 1
                continue
            kept.offsets.append(offset)
            kept.payloads.append(payload)
        return kept

    def _payloads(self, limit: int) -> Payloads:
        """Up to ``limit`` further payloads; none at the present end of the file."""
        found = Payloads()
        try:
            while len(found) < limit and self._descriptor is not None:
                if not self._searching:
                    self._take_intact(found, limit)
                    if len(found) >= limit:
                        break
                payload = self._next()
                if payload is None:
                    # What follows may still change (being written, or not yet visible on a
                    # network file system): read it afresh next time.
                    self._base, self._at, self._buffer = self.offset, 0, b""
                    break
                if payload:
                    found.offsets.append(self.offset - CHECKSUM.size - len(payload))
                    found.payloads.append(payload)
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be read any further: {error.strerror}") from None
        return found

    def _take_intact(self, found: Payloads, limit: int) -> None:
        """Add the payloads that lie whole and undamaged in the buffer, as fast as Python can. It
        stops before anything else: that is for :meth:`_next` to judge."""
        buffer, base, at = self._buffer, self._base, self._at
        lengths, view, crc32 = self._lengths, memoryview(self._buffer), zlib.crc32
        offsets, payloads = found.offsets, found.payloads
        stored, head_size, tail_size = CHECKSUM.unpack_from, LENGTH.size, CHECKSUM.size
        last = len(buffer) - tail_size
        for _ in range(limit - len(found)):
            start = at + head_size
            head = buffer[at:start]
            length = lengths.get(head) or self._length_of(head)
            if length is None:
                break
            end = start + length
            if end > last:
                break
            payload = view[start:end]
            crc = crc32(payload)
            if ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF != stored(buffer, end)[0]:
                break
            offsets.append(base + start)
            payloads.append(payload)
            at = end + tail_size
        self._at = at

    def _length_of(self, head: bytes) -> int | None:
        """The length that a record's first bytes tell; None where they are damaged or too few."""
        if len(head) < LENGTH.size:
            return None
        length, checksum = LENGTH.unpack(head)
        if not 0 < length <= MAX_MESSAGE_BYTES or masked_checksum(head[:8]) != checksum:
            return None
        if len(self._lengths) >= _KNOWN_LENGTHS:
            self._lengths.clear()
        self._lengths[head] = length
        return length

    def _read_preamble(self) -> None:
        """Check the first record by hand: it must name its fault, not count as damage."""
        assert self._descriptor is not None
        try:
            start = os.pread(self._descriptor, _PREAMBLE_LIMIT, 0)
        except OSError as error:
            raise TraceError(f"{self.path}: not readable: {error.strerror}") from None
        if not start:
            raise TraceError(f"{self.path}: empty: nothing was recorded in this file")
        foreign = TraceError(f"{self.path}: not a defaultpp trace")
        if len(start) < len(preamble()) and preamble().startswith(start):
            raise TraceError(f"{self.path}: empty: the run ended before it recorded anything")
        if len(start) < LENGTH.size or start[LENGTH.size :][: len(PREFIX)] != PREFIX:
            raise foreign
        length = LENGTH.unpack_from(start)[0]
        text = start[LENGTH.size :][:length]
        version = text[len(PREFIX) :]
        if length > _PREAMBLE_LIMIT or not version.isdigit():
            raise foreign
        if int(version) > FORMAT_VERSION:
            raise TraceError(
                f"{self.path}: written by newer version {int(version)} of the trace format (this "
                f"one reads {FORMAT_VERSION}): update defaultpp-monitor"
            )
        self._base = LENGTH.size + length + CHECKSUM.size

    def _next(self) -> bytes | None:
        """The next payload, empty for a damaged place that was passed, None at the end."""
        if self._searching and not self._resynchronise():
            return None
        if not self._have(LENGTH.size):
            return None
        length = self._length_of(self._buffer[self._at : self._at + LENGTH.size])
        if length is None:
            if self._only_zeros_follow():
                return None
            self.damaged += 1
            self._searching = True
            return b""
        return self._payload(length)

    def _payload(self, length: int) -> bytes | None:
        """The payload of the record at the present position, whose length is intact."""
        whole = LENGTH.size + length + CHECKSUM.size
        if not self._have(whole):
            return None
        start = self._at + LENGTH.size
        payload = self._buffer[start : start + length]
        if masked_checksum(payload) != CHECKSUM.unpack_from(self._buffer, start + length)[0]:
            # The last record may be one whose bytes another machine does not see yet.
            if not self._have(whole + 1):
                return None
            self.damaged += 1
            payload = b""
        self._at += whole
        return payload

    def _only_zeros_follow(self) -> bool:
        """A tail of zeros: bytes that never reached the disk, or are not yet visible to us."""
        if self._buffer[self._at :].strip(b"\0"):
            return False
        return not self._have(len(self._buffer) - self._at + 1)

    def _have(self, count: int) -> bool:
        """Make ``count`` bytes from the present position available; False if there are fewer."""
        missing = count - (len(self._buffer) - self._at)
        if missing <= 0:
            return True
        assert self._descriptor is not None
        self._base, self._buffer, self._at = self.offset, self._buffer[self._at :], 0
        pieces = [self._buffer]
        end = self._base + len(self._buffer)
        while missing > 0:
            wanted = max(_CHUNK, missing)
            if self._until is not None:
                wanted = min(wanted, self._until - end)
            piece = os.pread(self._descriptor, wanted, end) if wanted > 0 else b""
            if not piece:
                break
            pieces.append(piece)
            end += len(piece)
            missing -= len(piece)
        self._buffer = b"".join(pieces)
        return missing <= 0

    def _resynchronise(self) -> bool:
        """Move on to the next place that reads as a record's length; False if none yet."""
        while self._have(1 + LENGTH.size):
            window = np.frombuffer(self._buffer, dtype=np.uint8)[self._at + 1 :]
            for step in _plausible_lengths(window):
                at = self._at + 1 + int(step)
                checksum = LENGTH.unpack_from(self._buffer, at)[1]
                if masked_checksum(memoryview(self._buffer)[at : at + 8]) == checksum:
                    self._at = at
                    self._searching = False
                    return True
            # Keep the last bytes: a record's start may straddle the buffer's end.
            self._at = len(self._buffer) - LENGTH.size
        return False


def _plausible_lengths(window: np.ndarray) -> np.ndarray:
    """Offsets at which eight bytes, little endian, are a length within the bounds."""
    count = len(window) - LENGTH.size + 1
    low = np.zeros(count, dtype=np.uint32)
    for byte in range(4):
        low |= window[byte : byte + count].astype(np.uint32) << np.uint32(8 * byte)
    fits = (low > 0) & (low <= MAX_MESSAGE_BYTES)
    for byte in range(4, 8):
        fits &= window[byte : byte + count] == 0
    return np.flatnonzero(fits)


def _open(path: Path) -> int | None:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise TraceError(f"{path}: is a directory, not a trace: name a file in it")
        if not stat.S_ISREG(mode):
            raise TraceError(f"{path}: not a regular file, so not a trace")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise TraceError(f"{path}: not readable: {getattr(error, 'strerror', error)}") from None


def load(path: Path) -> list[Record]:
    """All records of a trace, as it stands now. Raises :class:`TraceError`."""
    with TraceReader(path) as reader:
        return list(reader)
