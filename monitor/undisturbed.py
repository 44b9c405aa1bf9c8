"""The interpreter set up for a screen: nothing in it may hold up a key for long."""

from __future__ import annotations

import gc
import sys

SWITCH_SECONDS = 0.0005
"""How long a thread that reads or diagnoses keeps the interpreter while the screen waits for it:
Python's own 5 ms come back each time numpy or the terminal let go of it."""


class Undisturbed:
    """While it is on, threads take short turns, and the garbage collector passes over what there
    was at start-up: going through all of it takes a tenth of a second, and finds nothing."""

    def __init__(self) -> None:
        self._interval: float | None = None

    def begin(self) -> None:
        """May be called again: what came since, such as a library loaded late, is passed over
        too."""
        if self._interval is None:
            self._interval = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH_SECONDS)
        gc.freeze()

    def end(self) -> None:
        """As it was before."""
        if self._interval is not None:
            sys.setswitchinterval(self._interval)
            self._interval = None
            gc.unfreeze()
