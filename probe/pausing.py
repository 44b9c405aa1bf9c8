"""Holding the training between two steps while a monitor's lease lasts."""

from __future__ import annotations

import threading
import time

from probe.schema import PAUSE_LEASE_SECONDS

RANKS_SECONDS = 60.0
"""A run of several ranks resumes by itself: the other ranks' collectives would time out."""


class Pause:
    """``hold`` is called in the publishing thread, ``wait`` in the training thread.

    The wait ends by :meth:`release`, or when no :meth:`hold` came for two leases: it does not
    depend on the publishing thread being alive.
    """

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._until = 0.0
        self._released = threading.Event()
        self._one_more = False

    @property
    def held(self) -> bool:
        """Whether the training should not begin another step."""
        return time.monotonic() < self._until

    def hold(self) -> None:
        """Begin or renew."""
        self._released.clear()
        self._until = time.monotonic() + 2 * PAUSE_LEASE_SECONDS

    def step(self) -> None:
        """Let one step through; the training is held again after it."""
        self.hold()
        self._one_more = True
        self._released.set()

    def release(self) -> None:
        """Let the training go on."""
        self._until = 0.0
        self._released.set()

    def wait(self) -> float:
        """Seconds the training was held."""
        began = time.monotonic()
        while self.held and not self._one_more:
            if self._ranks > 1 and time.monotonic() - began > RANKS_SECONDS:
                break
            self._released.wait(0.2)
        if self._one_more:
            self._one_more = False
        else:
            self._until = 0.0
        return time.monotonic() - began
