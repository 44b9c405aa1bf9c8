"""The actions of the keys that belong to a replay."""

from __future__ import annotations

from monitor.app_base import AppBase


class ReplayActions(AppBase):
    """Part of the application."""

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
        if self.replaying:
            self.replaying.step(1)
            self.acted()

    def action_step_back(self) -> None:
        if self.replaying:
            self.replaying.step(-1)
            self.acted()

    def action_jump(self) -> None:
        self.ask("jump to step", self._jump_to)

    def _jump_to(self, value: str | None) -> None:
        if value is None or self.replaying is None:
            return
        if not value.strip().isdecimal():
            self.say(f"“{value}” is not a step: type a whole number")
            return
        self.replaying.jump(int(value))
        self.acted()

    def action_jump_flag(self) -> None:
        if self.replaying is None:
            return
        if self.known_flag is None:
            self.say("no step has been flagged so far")
            return
        self.replaying.jump(self.known_flag)
        self.acted()
