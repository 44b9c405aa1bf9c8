"""When to sample: densely at first, then as often as the budget of training time allows. Pure."""

from __future__ import annotations

import math

CREDIT_STEPS = 400
"""How many steps to come may be spent in advance, so that a young run is seen densely."""


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
        self._cost = 0.0
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
        if sampled:
            self._samples += 1
            self._last = step
            # The first sample pays for caches and imports; the newest tell what one costs.
            self._cost = spent if self._samples <= 2 else 0.7 * self._cost + 0.3 * spent

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
        steady = math.ceil(self._cost / max(self._share * step_time, 1e-9))
        if step < self._last + min(steady, self._samples):
            return False
        allowed = self._share * (self._trained + step_time * CREDIT_STEPS)
        late = step >= self._last + 10 * steady
        return self._spent + self._cost <= allowed or late
