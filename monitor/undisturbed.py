"""The interpreter set up for a screen: nothing in it may hold up a key for long."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SWITCH_SECONDS = 0.0005
"""How long a thread that reads or diagnoses keeps the interpreter while the screen waits for it:
Python's own 5 ms come back each time numpy or the terminal let go of it."""
KEY_SECONDS = 0.02
"""The same for the screen, while it draws what a key did."""
COLLECTED = (10_000, 20, 20)
"""Garbage is looked for after so many objects: records come by the hundred thousand, and hold no
cycles."""


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is looked for meanwhile, nor later in what came: libraries stay once loaded, and
    going through them again and again takes a tenth of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class Undisturbed:
    """While it is on, threads take short turns, and the garbage collector passes over what there
    was at start-up: going through all of it takes a tenth of a second, and finds nothing."""

    def __init__(self) -> None:
        self._before: tuple[float, tuple[int, int, int]] | None = None

    def begin(self) -> None:
        """May be called again: what came since, such as a library loaded late, is passed over
        too."""
        if self._before is None:
            self._before = sys.getswitchinterval(), gc.get_threshold()
            sys.setswitchinterval(SWITCH_SECONDS)
            gc.set_threshold(*COLLECTED)
        gc.freeze()

    @contextmanager
    def first(self) -> Iterator[None]:
        """Meanwhile threads that read or diagnose wait for longer: for a key's picture."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(KEY_SECONDS)
        try:
            yield
        finally:
            sys.setswitchinterval(interval)

    def end(self) -> None:
        """As it was before."""
        if self._before is not None:
            interval, thresholds = self._before
            self._before = None
            sys.setswitchinterval(interval)
            gc.set_threshold(*thresholds)
            gc.unfreeze()
