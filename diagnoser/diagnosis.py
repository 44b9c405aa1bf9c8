"""The answer to the three questions: faulty? which category? which root cause?

:class:`Diagnosis` is what the engine returns after each frame, what the monitor draws, and, through
:func:`to_json`, what ``diagnose --json`` prints. Its field names are a stable interface.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from diagnoser.crashes import Crash

Verdict = Literal["faulty", "healthy", "insufficient"]


class Candidate(msgspec.Struct, frozen=True):
    """One root cause and its probability, given that the run is faulty."""

    category: str
    root_cause: str
    probability: float


class Evidence(msgspec.Struct, frozen=True):
    """One observation that speaks for the diagnosis. ``text`` is the sentence a person reads."""

    site: str
    metric: str
    value: float
    expected: str
    since_step: int
    text: str


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """State of the diagnosis at a step. Names are those of taxonomy.csv; None where not faulty."""

    run: str
    frames: int
    last_step: int
    verdict: Verdict
    probability: float
    """Calibrated probability that the run is faulty."""
    first_flagged_step: int | None = None
    category: str | None = None
    category_probability: float | None = None
    unsure: bool = False
    """Faulty, but no category is likelier than all others together: ``category`` is the likeliest,
    and not to be relied on."""
    root_cause: str | None = None
    root_cause_probability: float | None = None
    layers: tuple[int, ...] = ()
    ranking: tuple[Candidate, ...] = ()
    categories: dict[str, float] = {}
    """Each category's probability, given that the run is faulty; all 12, also of a run that is not
    flagged. Sums to 1. Empty before the first frame."""
    importance: dict[str, float] = {}
    """Node kind (``attention``) -> share of the decision; sums to 1 where faulty. Empty where the
    last frame speaks for another root cause than the one named, which earlier frames outvoted."""
    suspicion: dict[str, float] = {}
    """Site (``attention@2``) -> probability in [0, 1] that the fault sits there."""
    evidence: tuple[Evidence, ...] = ()
    repair: str | None = None
    crash: Crash | None = None
    """The exception that ended the run, where one did; it says nothing on the verdict."""


def to_json(diagnosis: Diagnosis, indent: int = 2) -> str:
    """The object of ``diagnose --json``; NaN becomes null."""
    return msgspec.json.format(msgspec.json.encode(diagnosis), indent=indent).decode()
