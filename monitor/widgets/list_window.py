"""Which entry of a list is chosen, and which part of it is on screen. Pure."""

from __future__ import annotations


def stepped(chosen: int, by: int, count: int) -> int:
    """The entry so many further in a list of ``count`` (at least 1); it stops at the ends."""
    return min(max(chosen + by, 0), count - 1)


def first_shown(chosen: int, count: int, height: int, first: int) -> int:
    """The first entry to show so that the chosen one is seen and the list moves little.

    ``first`` is the one shown first so far. The list is never scrolled past its end.
    """
    if chosen < first:
        first = chosen
    elif chosen >= first + height:
        first = chosen - height + 1
    return max(0, min(first, count - height))
