"""The actions of the keys that go through the past: of a replay, or of a run that is training.

What was read already is looked at as it was at a step, without reading it again: curves end there,
the diagnosis is the one of then. A live run goes on being taken in meanwhile. Only playing a replay
on from there, or going to what was not read yet, moves the source.
"""

from __future__ import annotations

import sys

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
        if self.replaying is None:
            return
        self.wants_flag = False
        looking_back, self.viewing.frozen = self.viewing.frozen, None
        if looking_back is not None:
            self.replaying.jump(looking_back)
            self.replaying.play(True)
        else:
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
        steps = self.model.sampled_steps()
        if not len(steps):
            self.say("nothing has been measured yet")
            return
        self.wants_flag = False
        frozen = self.viewing.frozen
        if self.replaying is not None and frames > 0 and frozen is None:
            self.replaying.step(frames)
            self.acted()
            return
        at = int(steps[-1]) if frozen is None else frozen
        place = int(np.searchsorted(steps, at, side="right")) - 1 + frames
        self.seek(int(steps[min(max(place, 0), len(steps) - 1)]))

    def action_jump(self) -> None:
        self.ask("jump to step", self._jump_to)

    def _jump_to(self, value: str | None) -> None:
        if value is None:
            return
        if not value.strip().isdecimal():
            self.say(f"“{value}” is not a step: type a whole number")
            return
        self.seek(int(value))

    def seek(self, step: int) -> None:
        self.wants_flag = False
        newest = self.model.step
        if self.replaying is None:
            self.look_at(step)
        elif newest is not None and step < newest:
            self.replaying.play(False)
            self.look_at(step)
        else:
            self.viewing.frozen = None
            self.replaying.jump(step)
            self.acted()

    def action_jump_flag(self) -> None:
        if self.known_flag is not None:
            self.seek(self.known_flag)
        elif self.replaying is None or self._all_diagnosed:
            self.say("no step has been flagged so far")
        else:
            self.seek(sys.maxsize)
            self.replaying.play(False)
            self.wants_flag = True
            self.message = "reading on to the step that is flagged first …"
            self.draw()

    def go_to_wanted_flag(self) -> None:
        """Where a replay was read on to find the first flag: there, as soon as it is known."""
        if not self.wants_flag:
            return
        if self.known_flag is not None:
            self.seek(self.known_flag)
        elif self._all_diagnosed:
            self.wants_flag = False
            self.say("no step of this trace is flagged")

    @property
    def _all_diagnosed(self) -> bool:
        """The replay stands at its end, and the diagnosis went over all of it."""
        assert self.replaying is not None
        position = self.replaying.position
        newest = self.diagnosing.newest
        seen = newest is not None and newest >= position.last_step and self.diagnosing.idle
        return position.at_end and not position.seeking and seen

    @on(ScrubBar.Sought)
    def _sought(self, message: ScrubBar.Sought) -> None:
        self.seek(message.step)
