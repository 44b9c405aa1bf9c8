"""What runs were told to be when they were last watched: the list of runs shows it.

Kept in the user's cache, a line of JSON a run, the newest last; losing it loses nothing else.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

import msgspec

from diagnoser.diagnosis import Diagnosis
from monitor.user_cache import cache_directory

MOST = 500
"""Runs kept; those watched longest ago go."""


class Remembered(msgspec.Struct, frozen=True):
    """A verdict, its names those of taxonomy.csv, and the step it was given at."""

    run: str
    verdict: Literal["healthy", "faulty"]
    category: str | None
    root_cause: str | None
    step: int


def remember(diagnosis: Diagnosis | None) -> None:
    """Keep the verdict, if one was given. What cannot be written is not kept."""
    place = _place()
    if place is None or diagnosis is None or diagnosis.verdict == "insufficient":
        return
    kept = remembered()
    kept.pop(diagnosis.run, None)
    kept[diagnosis.run] = Remembered(
        diagnosis.run,
        diagnosis.verdict,
        diagnosis.category,
        diagnosis.root_cause,
        diagnosis.last_step,
    )
    part = place.with_suffix(f".{os.getpid()}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.write_bytes(msgspec.json.Encoder().encode_lines(list(kept.values())[-MOST:]))
        part.replace(place)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def remembered() -> dict[str, Remembered]:
    """By run, those watched last at the end; empty where the file is gone or is not ours."""
    place = _place()
    try:
        lines = msgspec.json.Decoder(Remembered).decode_lines(place.read_bytes() if place else b"")
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return {line.run: line for line in lines}


def _place() -> Path | None:
    where = cache_directory()
    return where / "verdicts.jsonl" if where is not None else None
