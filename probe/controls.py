"""What a monitor may see and ask of a training, answered in the publishing thread.

It knows neither the probe nor the model: the thread must not keep alive what nobody else keeps.
"""

from __future__ import annotations

from typing import Literal

from probe.budget import Budget
from probe.pausing import Pause
from probe.schema import Done
from probe.status import Status


class Controls:
    """``step`` and ``off`` are kept up to date by the training thread."""

    def __init__(self, pause: Pause, budget: Budget) -> None:
        self.step = 0
        self.off = False
        self._pause = pause
        self._budget = budget

    def control(self, action: Literal["pause", "resume", "step", "sample"]) -> Done:
        """Carry out a request, or see to it that the training thread does."""
        if self.off:
            return Done(ok=False, text="the probe is off")
        if action == "pause":
            self._pause.hold()
            return Done(ok=True, text="training pauses before its next step")
        if action == "step":
            self._pause.step()
            return Done(ok=True, text="one more step, then paused again")
        if action == "resume":
            self._pause.release()
            return Done(ok=True, text="training goes on")
        self._budget.ask()
        return Done(ok=True, text="the next step will be sampled")

    def status(self) -> Status:
        """The state of the training."""
        state: Literal["off", "paused", "training", "waiting"]
        if self.off:
            state = "off"
        elif self._pause.held:
            state = "paused"
        else:
            state = "training" if self.step else "waiting"
        return Status(step=self.step, state=state, overhead=self._budget.overhead)
