"""The actions of the keys that hold the training, or stop where something happens."""

from __future__ import annotations

from monitor.app_base import AppBase
from monitor.breakpoints import FAULTY, BreakpointError, parsed
from monitor.keys import CHARTS


class TrainingActions(AppBase):
    """Part of the application."""

    def action_toggle_training(self) -> None:
        if self.holding:
            self.controlling.resume()
        else:
            self.controlling.pause()
        self.acted()

    @property
    def holding(self) -> bool:
        """The training is paused, by this monitor or another."""
        held = self.controlling.pausing or self.model.state == "paused"
        return held and not self.model.over

    def action_step_training(self) -> None:
        """One step more; a training that runs is paused first."""
        if self.holding:
            self.controlling.step()
        else:
            self.controlling.pause()
        self.acted()

    def action_sample(self) -> None:
        self.controlling.sample()

    def action_breakpoint(self) -> None:
        def done(value: str | None) -> None:
            if value is None:
                return
            try:
                points = parsed(value, self.model.groups)
            except BreakpointError as error:
                self.say(str(error))
                return
            self.breakpoints.put(points, self.model, self.diagnosis.diagnosis)
            self.message = f"stops when {self.breakpoints.text}" if points else "no breakpoints"
            now = self.model.step or 0
            past = [p.text for p in points if p.kind == "step" and p.level <= now]
            if past and not self.is_replay:
                self.message = f"{past[0]} is past: the training is at step {now}"
            self.draw()

        self.ask("stop when", done, self.breakpoints.text or self._proposal())

    def _proposal(self) -> str:
        """A condition on the chosen chart, to be completed."""
        keys = self.viewing.keys(self.model)
        if self.viewing.view not in CHARTS or self.viewing.selected not in keys:
            return FAULTY
        return f"{self.viewing.selected} > "

    def stop_where_wanted(self) -> None:
        """Pause the training, or the replay, where a breakpoint was met."""
        if not self.breakpoints.points:
            return
        point = self.breakpoints.met(self.model, self.diagnosis.diagnosis)
        position = self.replaying.position if self.replaying else None
        if point is None or (position is not None and not position.playing):
            return
        self.model.note(f"came to hold: {point.text}", "stopped")
        told = f"breakpoint {point.text}"
        if self.replaying is None:
            self.controlling.pause(told)
        else:
            self.replaying.play(False)
            self.message = f"{told}: replay paused"
        self.draw()
