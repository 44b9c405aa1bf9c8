"""Puts the numbered records of a stream in order, each exactly once, and says which are missing."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Sequencer(Generic[Item]):
    """Pure ordering: no sockets, no clock.

    Records arrive from two sides (published live, and asked for afterwards), late, twice or not at
    all. :meth:`offer` returns those that are due, in order; :meth:`missing` names the first gap.
    """

    def __init__(self, first: int = 0, window: int = 20_000) -> None:
        """``first``: the number to begin with. ``window``: at most this many records are held
        back while an earlier one is missing; later ones are let go and asked for again."""
        self.next_seq = first
        self.end = first
        """One past the newest number heard of."""
        self.duplicates = 0
        self.lost = 0
        """Numbers that will never come, because the run no longer holds them."""
        self._window = window
        self._held: dict[int, Item] = {}
        self._order: list[int] = []

    def offer(self, seq: int, item: Item) -> list[Item]:
        """Take one record; returns the records that can be delivered now, in order."""
        self.heard_of(seq)
        if seq < self.next_seq or seq in self._held:
            self.duplicates += 1
            return []
        if seq == self.next_seq:
            self.next_seq += 1
            return [item, *self._release()]
        if len(self._held) < self._window:
            self._held[seq] = item
            heapq.heappush(self._order, seq)
        return []

    def heard_of(self, seq: int) -> None:
        """A record with this number exists, whether it was seen or not."""
        self.end = max(self.end, seq + 1)

    def missing(self) -> tuple[int, int] | None:
        """First gap as ``first <= seq < last``, or None where everything heard of has come."""
        last = self._order[0] if self._order else self.end
        return (self.next_seq, last) if last > self.next_seq else None

    def give_up(self, before: int) -> list[Item]:
        """What is still missing below ``before`` will never come; returns what becomes due."""
        due: list[Item] = []
        while self.next_seq < before:
            stop = min(self._order[0], before) if self._order else before
            self.lost += stop - self.next_seq
            self.next_seq = stop
            due += self._release()
        self.end = max(self.end, self.next_seq)
        return due

    def _release(self) -> list[Item]:
        due: list[Item] = []
        while self._order and self._order[0] == self.next_seq:
            due.append(self._held.pop(heapq.heappop(self._order)))
            self.next_seq += 1
        return due
