"""A stretch of time on an axis."""

from __future__ import annotations


def duration(milliseconds: float) -> str:
    """Time since the beginning as a person reads it: 42.5 s, 3:07, 2:03:07, 4 d 02:03."""
    seconds = max(milliseconds, 0.0) / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    minutes, hours, days = whole // 60 % 60, whole // 3600 % 24, whole // 86400
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    if whole >= 3600:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}"
