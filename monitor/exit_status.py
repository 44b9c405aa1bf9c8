"""Exit statuses of the command line; those of a diagnosis are a stable interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diagnoser.diagnosis import Diagnosis

HEALTHY = 0
FAULTY = 1
UNDECIDED = 2
UNREADABLE = 3
USAGE = 64
INTERNAL = 70
INTERRUPTED = 130


def of_verdict(diagnosis: Diagnosis | None) -> int:
    """0 healthy, 1 faulty, 2 not enough evidence."""
    if diagnosis is None:
        return UNDECIDED
    return {"healthy": HEALTHY, "faulty": FAULTY}.get(diagnosis.verdict, UNDECIDED)
