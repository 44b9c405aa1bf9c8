"""What was read of a long trace, kept in the user's cache: it opens at once the next time.

Beside the overview the file holds where each record lies. It counts for nothing where the trace is
another one by now, and is made again then; a trace that grew is read on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np

from monitor.model_state import Arrays
from monitor.user_cache import cache_directory

LEAST_BYTES = 16 * 1024 * 1024
"""Smaller traces are read as fast as their overview."""
KEPT = 20
"""Overviews kept; the ones used longest ago go."""
_FORMAT = 1
_HEAD = 64 * 1024


def _place(trace: Path) -> Path | None:
    where = cache_directory()
    name = hashlib.sha256(str(trace.absolute()).encode()).hexdigest()[:32]
    return where / "overviews" / f"{name}.npz" if where is not None else None


def _identity(trace: Path, end: int) -> str:
    """Of the file's first bytes, and of the last that were read, before offset ``end``."""
    digest = hashlib.sha256(f"{_FORMAT} {end}".encode())
    with trace.open("rb") as file:
        digest.update(file.read(min(_HEAD, end)))
        file.seek(max(0, end - _HEAD))
        digest.update(file.read(min(_HEAD, end)))
    return digest.hexdigest()


def save(trace: Path, end: int, arrays: Arrays) -> None:
    """Keep arrays for a trace that was read up to ``end``. What cannot be written is not kept."""
    place = _place(trace)
    if place is None or end < LEAST_BYTES:
        return
    part = place.with_suffix(f".{os.getpid()}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with part.open("wb") as file:
            about = np.array([end], np.int64)
            identity = np.frombuffer(_identity(trace, end).encode(), np.uint8)
            np.savez(file, **{"trace.end": about, "trace.identity": identity}, **arrays)  # type: ignore[arg-type]
        part.replace(place)
        _sweep(place.parent)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _sweep(where: Path) -> None:
    files = sorted(where.glob("*.npz"), key=lambda file: -file.stat().st_mtime)
    for file in files[KEPT:]:
        file.unlink(missing_ok=True)


def load(trace: Path) -> tuple[int, Arrays] | None:
    """Up to which offset the trace was read, and the arrays; None where nothing fits it."""
    place = _place(trace)
    try:
        if place is None or trace.stat().st_size < LEAST_BYTES or not place.exists():
            return None
        with np.load(place, allow_pickle=False) as file:
            end = int(file["trace.end"][0])
            if trace.stat().st_size < end:
                return None
            if file["trace.identity"].tobytes().decode() != _identity(trace, end):
                return None
            arrays = {name: file[name] for name in file.files}
        os.utime(place)
        return end, arrays
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
