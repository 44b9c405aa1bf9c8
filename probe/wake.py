"""Wakes a thread that waits in a poll, from any other thread, without waiting."""

from __future__ import annotations

import contextlib
import os


class Wake:
    """A pipe whose reading end the waiting thread polls. :meth:`signal` never blocks or raises."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        self._signalled = False

    def fileno(self) -> int:
        return self._reading

    def signal(self) -> None:
        """Make the poll return. Further calls before :meth:`clear` cost next to nothing."""
        if not self._signalled:
            self._signalled = True
            # A full pipe wakes as well as one more byte would; a closed one has nobody to wake.
            with contextlib.suppress(OSError):
                os.write(self._writing, b"\0")

    def clear(self) -> None:
        """Call after waking and before looking for work, so that no later signal is lost."""
        with contextlib.suppress(OSError):
            while len(os.read(self._reading, 512)) == 512:
                pass
        self._signalled = False

    def close(self) -> None:
        """Close both ends, after the waiting thread has ended."""
        self._signalled = True  # whoever still signals must not write to a reused descriptor
        for descriptor in (self._reading, self._writing):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._reading = self._writing = -1
