"""Writes a trace from inside the training process."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from probe.trace_format import LENGTH, PREFIX, TraceError, framed, preamble

DEFAULT_CAP_BYTES = 2 * 1024**3
THINNING = 16
"""Past the size cap one frame of this many is stored, then of twice as many per further eighth."""


class TraceWriter:
    """Appends records to a new file. One writer, one thread; nothing is raised after or at opening.

    Every append is one ``write`` on a descriptor opened for appending, without a buffer in the
    process, so that a SIGKILL loses at most the record in flight. An error of the file system
    (disk full, quota, a vanished mount) turns storing off for good and is reported once.

    A trace that already stands at ``path`` is moved aside (``NAME.1``, ``NAME.2`` ...), since a
    script run twice with the same path must not destroy the first run; any other file is refused.

    Size cap: once the file holds ``cap_bytes``, of the payloads appended with ``thin=True``
    (frames) only every 16th is stored, then every 32nd after another eighth of the cap, and so
    on: the file keeps growing, but ever more slowly. What was stored before stays; headers,
    scalars, events and the end are always stored.
    """

    def __init__(
        self,
        path: Path,
        cap_bytes: int = DEFAULT_CAP_BYTES,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self.path = path
        self.cap_bytes = max(1, cap_bytes)
        self.thinned = 0
        """Payloads left out because of the size cap."""
        self.size = 0
        """Bytes written."""
        self._on_error = on_error
        self._offered = 0
        self._descriptor: int | None = None
        try:
            self._descriptor = _open_new(path)
            self._write(preamble())
        except (OSError, TraceError) as error:
            self._give_up(error)

    @property
    def storing(self) -> bool:
        """False once closed or given up."""
        return self._descriptor is not None

    def append(self, payload: bytes, thin: bool = False) -> bool:
        """Store one payload; True once in the file. ``thin``: may be left out past the cap."""
        if self._descriptor is None:
            return False
        if thin and self.size >= self.cap_bytes:
            self._offered += 1
            if self._offered % self._keep_every():
                self.thinned += 1
                return False
        try:
            self._write(framed(payload))
        except OSError as error:
            self._give_up(error)
            return False
        return True

    def flush(self) -> None:
        """Ask the system to put the file on the disk; may take long on a slow one."""
        if self._descriptor is None:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file. May be called twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            os.close(descriptor)
        except OSError as error:  # NFS and quotas report a failed write as late as here
            self._report(error)

    def _keep_every(self) -> int:
        eighth = max(1, self.cap_bytes // 8)
        return THINNING << min(32, (self.size - self.cap_bytes) // eighth)

    def _write(self, data: bytes) -> None:
        assert self._descriptor is not None
        written = 0
        try:
            while written < len(data):  # a second turn only where the system wrote a part
                written += os.write(self._descriptor, data[written:])
        except OSError:
            if written:
                _cut(self._descriptor, self.size)
            raise
        self.size += written

    def _give_up(self, error: Exception) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):  # the error that led here is the one to report
                os.close(descriptor)
        self._report(error)

    def _report(self, error: Exception) -> None:
        if self._on_error is None:
            return
        if isinstance(error, OSError):
            error = TraceError(f"{self.path}: the trace is no longer stored: {error.strerror}")
        self._on_error(error)


def _cut(descriptor: int, size: int) -> None:
    """Remove a record of which only a part was written; a reader would skip it anyway."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, size)


def _open_new(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    for _ in range(8):  # several ranks may be given one path at the same moment
        try:
            return os.open(path, flags, 0o600)
        except FileExistsError:
            _make_room(path)
    raise TraceError(f"{path}: another process keeps creating this file; name another one")


def _make_room(path: Path) -> None:
    """Move a trace at ``path`` aside, remove an empty file; refuse to touch anything else."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise TraceError(f"{path} is a directory; name a file for the trace")
        if not stat.S_ISREG(mode):
            raise TraceError(f"{path} is not a regular file; name another one for the trace")
        with path.open("rb") as file:
            start = file.read(LENGTH.size + len(PREFIX))
        if not start:
            path.unlink()
            return
        if start[LENGTH.size :] != PREFIX:
            raise TraceError(f"{path} exists and is not a trace; name another file for the trace")
        number = 1
        while (aside := path.with_name(f"{path.name}.{number}")).exists():
            number += 1
        path.rename(aside)
    except FileNotFoundError:
        if path.is_symlink():
            raise TraceError(f"{path} is a broken link; name another file for the trace") from None
