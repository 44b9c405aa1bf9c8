"""What the probe tells the person at the terminal of the training: one line each, once."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path


class Notices:
    """Lines on standard error. Nothing here raises, even where standard error is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def tell(self, text: str) -> None:
        """Print one line."""
        # A daemon may have no standard error at all; print() would then take standard output.
        with contextlib.suppress(Exception):
            if sys.stderr is not None:
                print(f"defaultpp probe: {text}", file=sys.stderr)

    def once(self, subject: str, text: str) -> None:
        """Print a line unless one on the same subject was printed: what fails, fails each step."""
        with self._lock:
            if subject in self._told:
                return
            self._told.add(subject)
        self.tell(text)

    def transport(self, error: BaseException) -> None:
        """A socket, the trace or a draft failed; the rest goes on. The same is told once."""
        expected = type(error).__module__.startswith("probe.")
        subject = type(error).__name__ + (str(error) if expected else place(error))
        self.once(subject, str(error) if expected else f"{in_words(error)}; the rest goes on")


def in_words(error: BaseException) -> str:
    """What, and where in the code."""
    return f"{type(error).__name__}: {error} ({place(error)})"


def place(error: BaseException) -> str:
    """``file:line`` that raised."""
    tb = error.__traceback__
    if tb is None:
        return "unknown place"
    while tb.tb_next is not None:
        tb = tb.tb_next
    return f"{Path(tb.tb_frame.f_code.co_filename).name}:{tb.tb_lineno}"
