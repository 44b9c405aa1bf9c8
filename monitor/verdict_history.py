"""The verdict at every sampled step: how probable a fault was, and of which category.

Bounded like every history: long runs share buckets, and the most alarming of a bucket stays.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct

from diagnoser.diagnosis import Diagnosis
from diagnoser.taxonomy import CATEGORY_NAMES
from monitor.envelope import Curve, Envelope

WORDS = ("insufficient", "healthy", "faulty")
"""Verdicts; one's place in this list is its number in the history."""
_NAMED = 0.02
"""A category whose probability never reached this has no band."""


class Bands(Struct, frozen=True):
    """What to draw: ``verdict`` holds places in WORDS, the others probabilities."""

    verdict: Curve
    fault: Curve
    categories: tuple[Curve, ...]
    """Those that ever mattered, the most probable first."""


class VerdictHistory:
    """Diagnoses in, bands out."""

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        self.clear()

    def clear(self) -> None:
        self._envelope = Envelope(2 + len(CATEGORY_NAMES), self._capacity)

    def add(self, *diagnoses: Diagnosis) -> None:
        """Take in the diagnoses after some frames, in order."""
        last = self._envelope.last_step
        found: list[Diagnosis] = []
        for diagnosis in diagnoses:
            if diagnosis.frames == 0:
                continue
            if diagnosis.last_step == last:
                # Said again of the same step: the later word counts as well.
                self._put(found)
                found = []
                self._envelope.merge_into_last(np.array(row(diagnosis), np.float32))
                continue
            last = diagnosis.last_step
            found.append(diagnosis)
        self._put(found)

    def _put(self, diagnoses: list[Diagnosis]) -> None:
        if diagnoses:
            steps = np.array([diagnosis.last_step for diagnosis in diagnoses], np.int64)
            rows = np.array([row(diagnosis) for diagnosis in diagnoses], np.float32)
            self._envelope.extend(steps, rows)

    def bands(self, upto: int | None = None) -> Bands | None:
        """Curves up to a step; None before the first diagnosis."""
        envelope = self._envelope
        if envelope.count == 0:
            return None
        curves = [
            envelope.curve(2 + index, name, upto) for index, name in enumerate(CATEGORY_NAMES)
        ]
        peaks = {curve.label: _peak(curve) for curve in curves}
        named = [curve for curve in curves if peaks[curve.label] >= _NAMED]
        named.sort(key=lambda curve: -peaks[curve.label])
        verdict = envelope.curve(1, "verdict", upto)
        return Bands(verdict, envelope.curve(0, "fault", upto), tuple(named))


def row(diagnosis: Diagnosis) -> list[float]:
    """Probability of a fault, the verdict's number, and each category's probability.

    A category's is that of a fault times its share if there is one: all of them add up to the
    fault's. They are told before a fault is flagged too. A diagnosis that names only its
    candidates (an engine of another kind) gives each category what its candidates have.
    """
    shares = diagnosis.categories or _of_candidates(diagnosis)
    fault = diagnosis.probability if math.isfinite(diagnosis.probability) else 0.0
    return [
        diagnosis.probability,
        WORDS.index(diagnosis.verdict),
        *[fault * shares.get(name, 0.0) for name in CATEGORY_NAMES],
    ]


def _of_candidates(diagnosis: Diagnosis) -> dict[str, float]:
    shares: dict[str, float] = {}
    for candidate in diagnosis.ranking:
        shares[candidate.category] = shares.get(candidate.category, 0.0) + candidate.probability
    if diagnosis.category is not None and diagnosis.category_probability is not None:
        shares[diagnosis.category] = diagnosis.category_probability
    return shares


def _peak(curve: Curve) -> float:
    known = curve.high[np.isfinite(curve.high)]
    return float(known.max()) if len(known) else 0.0
