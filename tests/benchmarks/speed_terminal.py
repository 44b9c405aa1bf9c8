"""The monitor in a process of its own on a pseudo-terminal, which reads no faster than a link."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from struct import pack

SIZE = (204, 60)


class Terminal:
    """``rate`` is in bytes a second. Python's bytecode is kept as that of an installed package is:
    the first start of all compiles."""

    def __init__(self, words: list[str], rate: float = float("inf")) -> None:
        self._main, side = pty.openpty()
        ioctl(side, termios.TIOCSWINSZ, pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "monitor.cli", *words],
            stdin=side,
            stdout=side,
            stderr=side,
            env=environment | {"DEFAULTPP_SETTINGS": ""},
            start_new_session=True,
        )
        os.close(side)
        self._rate = rate
        self.received = bytearray()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)

    def read(self, timeout: float) -> bytes:
        """What came, never faster than the rate."""
        if not select.select([self._main], [], [], timeout)[0]:
            return b""
        try:
            data = os.read(self._main, 16384)
        except OSError:  # the other side is gone
            return b""
        if self._rate < float("inf"):
            time.sleep(len(data) / self._rate)
        self.received += data
        return data

    def watch(self, seconds: float) -> None:
        """Read for a while."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.read(0.05)

    def until(self, wanted: bytes, timeout: float = 60.0) -> float:
        """Seconds until these bytes came; raises TimeoutError."""
        began, start = time.perf_counter(), len(self.received)
        while time.perf_counter() - began < timeout:
            self.read(0.02)
            if wanted in self.received[max(0, start - len(wanted)) :]:
                return time.perf_counter() - began
        raise TimeoutError(f"{wanted!r} never came")

    def press(self, key: bytes) -> None:
        """Type a key."""
        os.write(self._main, key)
