"""The actions of the keys that choose, hide and enlarge panes, and go to one by its letter."""

from __future__ import annotations

from collections.abc import Callable

from monitor.app_base import AppBase
from monitor.pane_choice import PaneChoice
from monitor.widgets.jump_screen import JumpScreen


class PaneActions(AppBase):
    """Part of the application."""

    @property
    def _choice(self) -> PaneChoice:
        return self.viewing.choice

    def _arranged(self) -> None:
        if self.view is not None:
            self.view.arrange_panes()
        self.acted()
        self.call_after_refresh(self.draw)

    def action_next_pane(self, by: int) -> None:
        if self.view is not None:
            panes = self.view.pane_ids if self._choice.enlarged else self.view.shown_ids
            self._choice.move([pane for pane in panes if pane not in self._choice.hidden], by)
            self._arranged()

    def _chosen_pane(self) -> str:
        view = self.view
        assert view is not None
        current = self._choice.current
        return current if current in view.shown_ids else view.main_pane

    def action_enlarge_pane(self) -> None:
        if self.view is not None:
            self._choice.enlarge(self._chosen_pane())
            self._arranged()

    def action_hide_pane(self) -> None:
        if self.view is None:
            return
        # With one pane enlarged the others are there still.
        panes = [pane for pane in self.view.pane_ids if pane not in self._choice.hidden]
        if not self._choice.enlarged:
            panes = self.view.shown_ids
        if not self._choice.hide(self._chosen_pane(), panes):
            self.say("the last pane of a view stays")
            return
        self._arranged()

    def action_show_panes(self) -> None:
        self._choice.hidden.clear()
        self._choice.enlarged = None
        self._arranged()

    def go_to_pane(self, go: Callable[[], None]) -> None:
        """Choose what a target of jump mode stands for."""
        go()
        self._arranged()

    def action_jump_mode(self) -> None:
        if self.view is None:
            return
        targets = self.view.targets()

        def go(at: int | None) -> None:
            if at is not None:
                self.go_to_pane(targets[at].go)

        self.push_screen(JumpScreen([target.widget.region.offset for target in targets]), go)
