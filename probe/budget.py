"""When to sample: densely at first, then as often as the budget of training time allows. Pure."""

from __future__ import annotations

import math
import statistics
from collections import deque

CREDIT_STEPS = 30
CREDIT_SECONDS = 1.5
"""What may be spent in advance, so that a young run is seen densely: the share of so many steps to
come, or so little time that nobody misses it, whichever is more. (As samples count, see
:data:`WEIGHT`: half a second. Of a small model, whose sample costs more than a step, the first
dozen samples; without them it would be seen for the first time after a minute.)"""

WEIGHT = 3.0
"""How much a sample counts for each second that the probe saw itself spend on it. It costs more
than that (cold caches, the allocator, the publishing thread: 1.0 to 1.25 times, measured step by
step against an unwatched copy), and the share is a bound to stay under, in any stretch of a run
that someone measures, not a mean to meet: the probe aims at two fifths of it."""

OUTLIER = 20.0
"""A sample counts as at most so many usual ones."""


class Budget:
    """Decides at each step whether to sample it.

    ``every``: an int samples exactly each such step; None leaves it to the budget. ``share``: probe
    time over training time that may be spent, None for no limit.
    """

    def __init__(self, every: int | None, share: float | None) -> None:
        self._every = every
        self._share = share
        self._samples = 0
        self._steps = 0
        self._trained = 0.0
        self._spent = 0.0
        self._counted = 0.0
        self._costs: deque[float] = deque(maxlen=5)
        self._last = -1
        self._asked = False

    @property
    def overhead(self) -> float:
        """Probe time over training time so far; NaN before the first step."""
        return self._spent / self._trained if self._trained > 0 else math.nan

    def ask(self) -> None:
        """A person wants the next step sampled, whatever the budget says."""
        self._asked = True

    def step_done(self, step: int, seconds: float, spent: float, sampled: bool) -> None:
        """``seconds`` the step took without the probe, ``spent`` of probe time within it."""
        self._steps += 1
        self._trained += max(seconds, 0.0)
        self._spent += spent
        if not sampled:
            self._counted += spent
            return
        # One that took ever so long was held up by something else: a suspended machine.
        usual = self._cost if self._samples > 2 else math.inf
        # Nor does the first say what a sample costs: it pays for imports, once.
        weight = WEIGHT if self._samples else 1.0
        self._counted += weight * min(spent, OUTLIER * usual)
        self._samples += 1
        self._last = step
        if self._samples == 2:
            self._costs.clear()  # the first paid for caches and imports
        self._costs.append(spent)

    @property
    def _cost(self) -> float:
        """What a sample costs by now, seconds."""
        return statistics.median(self._costs)

    def wants(self, step: int) -> bool:
        """Whether ``step``, which is about to begin, should be sampled."""
        if self._asked:
            self._asked = False
            return True
        if self._every is not None:
            return step % self._every == 0
        if self._samples < 2 or self._share is None:
            return True
        step_time = self._trained / self._steps
        cost = WEIGHT * self._cost
        steady = math.ceil(cost / max(self._share * step_time, 1e-9))
        if step < self._last + min(steady, self._samples):
            return False
        credit = max(self._share * step_time * CREDIT_STEPS, CREDIT_SECONDS)
        allowed = self._share * self._trained + credit
        late = step >= self._last + 10 * steady
        return self._counted + cost <= allowed or late
