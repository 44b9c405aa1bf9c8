"""A picture drawn a few pieces at a time, so that a key waits for one of them, not for all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

SLICE = 0.004
"""Seconds in a row that drawing may take, the last piece's rest aside."""
BREATH = 0.001

Piece = Callable[[], None]


class InPieces:
    """``later`` calls something after so many seconds, once what came meanwhile is done."""

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._later = later
        self._left: deque[Piece] = deque()
        self._wanted: Callable[[], bool] = lambda: True

    @property
    def unfinished(self) -> bool:
        """Some pieces are still to be drawn."""
        return bool(self._left)

    def begin(self, pieces: Iterable[Piece], wanted: Callable[[], bool] = lambda: True) -> None:
        """Draw these, in order, in place of what is left of another picture; as long as they are
        wanted: what they draw on may be taken down meanwhile."""
        self._left = deque(pieces)
        self._wanted = wanted
        self._go_on()

    def drop(self) -> None:
        """What is left was drawn otherwise, or is not wanted any more."""
        self._left.clear()

    def _go_on(self) -> None:
        if not self._wanted():
            self.drop()
        until = time.monotonic() + SLICE
        while self._left:
            self._left.popleft()()
            if time.monotonic() >= until:
                break
        if self._left:
            self._later(BREATH, self._go_on)
