"""From a score per frame to a verdict that holds: smoothing and hysteresis.

The score is the mean of the last frames' logits. A run is flagged when that stays high for some
frames in a row, and cleared only after it stayed low for longer: one odd frame does neither. A
contract that no healthy model breaks, and that was broken more than once, needs no more waiting.

Which category it is the network tells better than any contract, whose causal order is a guess where
several are broken. Which root cause within it a contract tells better, where one speaks for it; so
it is where pairs, families and operators are held out.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating]

SMOOTHED = 3
HOLD = 2
RELEASE = 5
ENOUGH_FRAMES = 3
ENOUGH_MEASURED = 0.15

NAMED = 0.8
"""Share of a category's probability for the root cause that its contracts name. Any above a half
makes it the first."""


@dataclass(frozen=True)
class Thresholds:
    """Probabilities: flagged from ``high`` on, cleared under ``low``."""

    high: float = 0.9
    low: float = 0.4


@dataclass(frozen=True)
class Score:
    """The network's calibrated answer to one frame. ``cause`` is given its category.

    ``category``: (12,), ``cause``: (45,) probabilities; ``origin``: (nodes,).
    """

    logit: float
    category: Floats
    cause: Floats
    origin: Floats
    certain: bool = False
    """A contract that no healthy model breaks is broken."""
    named: Floats | None = None
    """(45,) 1 for the root cause of each category that its contracts name; None: none are heard."""


@dataclass(frozen=True)
class State:
    """Where the decision stands. ``joint``: (45,) probability of each root cause if faulty."""

    enough: bool
    flagged: bool
    probability: float
    first_flagged_step: int | None
    category: Floats
    joint: Floats
    origin: Floats


class Decision:
    """Feed it every frame's score in order."""

    def __init__(self, thresholds: Thresholds, cause_category: tuple[int, ...]) -> None:
        self.thresholds = thresholds
        self._cause_category = np.array(cause_category)
        self._scores: deque[Score] = deque(maxlen=SMOOTHED)
        self._frames = 0
        self._high = 0
        self._low = 0
        self._flagged = False
        self._since: int | None = None

    def forget_nodes(self) -> None:
        """The nodes changed: per-node answers of earlier frames no longer fit."""
        self._scores.clear()

    def update(self, step: int, score: Score, measured: float) -> State:
        """``measured``: share of the columns that hold a value."""
        self._frames += 1
        self._scores.append(score)
        logits = np.array([s.logit for s in self._scores])
        probability = float(_probability(score.logit if score.certain else logits.mean()))
        enough = self._frames >= ENOUGH_FRAMES and measured >= ENOUGH_MEASURED
        if enough:
            self._judge(step, probability, score.certain)
        # Which fault it is, frames that look healthy cannot tell.
        weights = _probability(logits) + 1e-9
        category = np.average([s.category for s in self._scores], axis=0, weights=weights)
        cause = np.average([s.cause for s in self._scores], axis=0, weights=weights)
        cause = as_named(cause, score.named, self._cause_category)
        return State(
            enough=enough,
            flagged=self._flagged,
            probability=probability,
            first_flagged_step=self._since,
            category=category,
            joint=category[self._cause_category] * cause,
            origin=np.average([s.origin for s in self._scores], axis=0, weights=weights),
        )

    def _judge(self, step: int, probability: float, certain: bool) -> None:
        self._high = self._high + 1 if probability >= self.thresholds.high else 0
        self._low = self._low + 1 if probability <= self.thresholds.low else 0
        if not self._flagged and (certain or self._high >= HOLD):
            self._flagged, self._since = True, step
        elif self._flagged and self._low >= RELEASE:
            self._flagged, self._since = False, None


def as_named(
    cause: Floats, named: Floats | None, cause_category: npt.NDArray[np.integer]
) -> Floats:
    """(45,) probability of each root cause given its category, with what contracts name."""
    if named is None:
        return cause
    share = NAMED * np.bincount(cause_category, weights=named)[cause_category]
    return (1.0 - share) * cause + share * named


def _probability(logit: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -30, 30)))
