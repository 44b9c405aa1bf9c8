"""How long a pause of the training holds."""

from __future__ import annotations

from probe.schema import PAUSE_LEASE_SECONDS

SEVERAL_RANKS_SECONDS = 60.0
"""Longest pause of a run of several ranks: the others wait in a collective, which times out."""


class PauseLease:
    """A pause holds only while a monitor keeps asking for it, so it ends with the monitor.

    In a run of several ranks it also ends by itself after 60 seconds; what asks for it without a
    break is then refused, until it stopped asking for the length of a lease. Times are seconds of
    a monotonic clock, given by the caller.
    """

    def __init__(self, world_size: int = 1) -> None:
        self._longest = SEVERAL_RANKS_SECONDS if world_size > 1 else float("inf")
        self._since: float | None = None
        self._until = 0.0
        self._refused_until = 0.0

    @property
    def held(self) -> bool:
        return self._since is not None

    @property
    def deadline(self) -> float | None:
        """When it lapses, None when not held."""
        if self._since is None:
            return None
        return min(self._until, self._since + self._longest)

    def allows(self, now: float) -> bool:
        """Whether a pause may start or go on. Asking counts: a refused asker has to stop first."""
        if now >= self._refused_until:
            return True
        self._refused_until = now + PAUSE_LEASE_SECONDS
        return False

    def renew(self, now: float) -> None:
        """Start the lease or prolong it."""
        if self._since is None:
            self._since = now
        self._until = now + PAUSE_LEASE_SECONDS

    def end(self) -> None:
        """The training was resumed."""
        self._since = None
        self._refused_until = 0.0

    def lapsed(self, now: float) -> bool:
        """True once when the lease has run out; it is not held any more after that."""
        deadline = self.deadline
        if deadline is None or self._since is None or now < deadline:
            return False
        too_long = now >= self._since + self._longest
        self.end()
        if too_long:
            self._refused_until = now + PAUSE_LEASE_SECONDS
        return True
