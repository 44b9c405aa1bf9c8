"""The trace's format: one append-only file of records.

Framing as in TFRecord: length (uint64, little endian), masked checksum of the length's eight
bytes (uint32), payload, masked checksum of the payload (uint32). The first record's payload is
``defaultpp-trace/N`` with N the format version; each further payload is one encoded record of
:mod:`probe.schema`, in stream order.

The checksum is zlib's CRC-32 with TFRecord's rotation and constant, not the Castagnoli
polynomial that TFRecord uses: crc32c is not in the standard library, in pure Python it takes
about a second per 10 MB, and a C extension would be one more package inside a training process.
zlib's detects the same torn and flipped bytes at more than 1 GB/s. TFRecord tools therefore read
these files only with their checksum test switched off.
"""

from __future__ import annotations

import struct
import zlib

FORMAT_VERSION = 1

PREFIX = b"defaultpp-trace/"
LENGTH = struct.Struct("<QI")
CHECKSUM = struct.Struct("<I")
MASK = 0xA282EAD8
"""Added to a rotated checksum, see :func:`masked`; the reader's inner loop writes that out."""


class TraceError(Exception):
    """A file that is not a trace, or one this version cannot read; the message is one sentence."""


def masked_checksum(data: bytes | memoryview) -> int:
    """CRC-32 of ``data``, rotated right by 15 bits plus a constant.

    The masking (TensorFlow's ``crc32c.h``) keeps a checksum stored beside data from being that
    data's own checksum when records are nested.
    """
    return masked(zlib.crc32(data))


def masked(crc: int) -> int:
    """How a CRC-32 is stored."""
    return (((crc >> 15) | (crc << 17)) + MASK) & 0xFFFFFFFF


def framed(payload: bytes) -> bytes:
    """One record as it stands in the file."""
    length = struct.pack("<Q", len(payload))
    return b"".join(
        (
            length,
            CHECKSUM.pack(masked_checksum(length)),
            payload,
            CHECKSUM.pack(masked_checksum(payload)),
        )
    )


def preamble(version: int = FORMAT_VERSION) -> bytes:
    """The first record of a trace, framed."""
    return framed(PREFIX + str(version).encode())
