"""When the next picture of new data is due. Times are seconds of one clock."""

from __future__ import annotations

KEYS_FIRST = 0.15
"""New data of a live run wait so long after a key, for the next one..."""
MEANWHILE = 0.5
"""... but never longer than this after the last picture."""


def picture_due(ticked: float, apart: float, acted: float | None = None) -> float:
    """``apart`` after the last picture; where keys matter, not before the last one, ``acted``, was
    some time ago. What a key does in a replay is in the data that come of it: None there."""
    due = ticked + apart
    return due if acted is None else max(due, min(acted + KEYS_FIRST, ticked + MEANWHILE))
