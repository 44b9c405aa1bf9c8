"""The actions of the keys that go through the past: of a replay, or of a run that is training.

A live run is looked at as it was at a step by standing still there; data keep being taken in.
"""

from __future__ import annotations

import numpy as np
from textual import on

from monitor.app_base import AppBase
from monitor.widgets.scrub_bar import ScrubBar


class ReplayActions(AppBase):
    """Part of the application."""

    def look_at(self, step: int) -> None:
        """Show the run as it was at a step, or at the last sample before it."""
        raise NotImplementedError

    def action_toggle_play(self) -> None:
        if self.replaying:
            self.replaying.toggle()
            self.acted()

    def action_faster(self) -> None:
        if self.replaying:
            self.replaying.change_speed(2.0)
            self.acted()

    def action_slower(self) -> None:
        if self.replaying:
            self.replaying.change_speed(0.5)
            self.acted()

    def action_step_forward(self) -> None:
        self._step(1)

    def action_step_back(self) -> None:
        self._step(-1)

    def _step(self, frames: int) -> None:
        if self.replaying:
            self.replaying.step(frames)
            self.acted()
            return
        steps = self.model.sampled_steps()
        if not len(steps):
            self.say("nothing has been measured yet")
            return
        at = self.viewing.frozen if self.viewing.frozen is not None else int(steps[-1])
        place = int(np.searchsorted(steps, at, side="right")) - 1
        self.look_at(int(steps[min(max(place + frames, 0), len(steps) - 1)]))

    def action_jump(self) -> None:
        self.ask("jump to step", self._jump_to)

    def _jump_to(self, value: str | None) -> None:
        if value is None:
            return
        if not value.strip().isdecimal():
            self.say(f"“{value}” is not a step: type a whole number")
            return
        self._go_to(int(value))

    def _go_to(self, step: int) -> None:
        if self.replaying is not None:
            self.replaying.jump(step)
            self.acted()
        else:
            self.look_at(step)

    def action_jump_flag(self) -> None:
        if self.known_flag is None:
            self.say("no step has been flagged so far")
            return
        self._go_to(self.known_flag)

    @on(ScrubBar.Sought)
    def _sought(self, message: ScrubBar.Sought) -> None:
        self._go_to(message.step)
