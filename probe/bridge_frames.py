"""Framing of the bridge's two streams: length, kind, body.

A login may print a banner before the bridge starts, so the stream begins with a greeting
(:data:`GREETING`); what comes before it is skipped, up to a bound.
"""

from __future__ import annotations

import struct

from probe.schema import MAX_MESSAGE_BYTES

GREETING = b"\x00defaultpp-bridge/1\n"
NOISE_LIMIT = 256 * 1024
"""Bytes of banners and other output that may come before the greeting."""

PUBLISHED = b"P"
"""To the monitor: one message of the run's stream."""
REPLY = b"A"
"""To the monitor: request id, then the reply."""
REQUEST = b"Q"
"""To the run: request id, then the request."""
ENTRY = b"E"
"""To the monitor, first of all: the run's registry entry as JSON."""
REFUSAL = b"X"
"""To the monitor: a sentence, why there is nothing to carry."""
GONE = b"G"
"""To the monitor: the run's process no longer exists."""

_HEAD = struct.Struct(">Ic")


class FrameError(Exception):
    """A stream that is not the bridge's, or is broken."""


def pack(kind: bytes, body: bytes) -> bytes:
    """One frame: length of the body (uint32, big endian), kind (one byte), body."""
    return _HEAD.pack(len(body), kind) + body


class FrameReader:
    """Cuts a byte stream into frames, whatever the pieces it arrives in."""

    def __init__(self, *, greeting: bool, limit: int = MAX_MESSAGE_BYTES + 64) -> None:
        """``greeting``: skip what comes before the greeting. ``limit``: bytes of one body."""
        self.greeted = not greeting
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The frames completed by ``data``, as (kind, body). Raises :class:`FrameError`."""
        self._buffer += data
        if not self.greeted and not self._skip_to_greeting():
            return []
        frames: list[tuple[bytes, bytes]] = []
        at = 0
        while len(self._buffer) - at >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._buffer, at)
            if length > self._limit:
                raise FrameError(f"a frame of {length} bytes is over the limit of {self._limit}")
            start = at + _HEAD.size
            if len(self._buffer) < start + length:
                break
            frames.append((kind, bytes(self._buffer[start : start + length])))
            at = start + length
        del self._buffer[:at]
        return frames

    def _skip_to_greeting(self) -> bool:
        at = self._buffer.find(GREETING)
        if at < 0:
            if len(self._buffer) > NOISE_LIMIT:
                raise FrameError("the other side is not a defaultpp bridge")
            return False
        del self._buffer[: at + len(GREETING)]
        self.greeted = True
        return True
