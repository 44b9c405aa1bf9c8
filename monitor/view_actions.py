"""The actions of the keys that switch views and move within them."""

from __future__ import annotations

from pathlib import Path

from textual import on

from monitor.app_base import AppBase
from monitor.view_names import ViewName, title_of
from monitor.widgets.view_bar import ViewBar


class ViewActions(AppBase):
    """Part of the application."""

    def action_picture(self) -> None:
        step = self.viewing.frozen if self.viewing.frozen is not None else self.model.step
        name = f"{self.viewing.view}-{step}.svg" if step is not None else f"{self.viewing.view}.svg"
        # Made now: what is asked for is the screen without the question.
        picture = self.export_screenshot(title=f"defaultpp-monitor · {title_of(self.viewing.view)}")

        def done(value: str | None) -> None:
            if not value or not value.strip():
                return
            path = Path(value.strip()).expanduser()
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(picture)
            except FileExistsError:
                self.say(f"{path} exists: name another file")
            except OSError as error:
                self.say(f"{path} cannot be written: {error.strerror}")
            else:
                self.say(f"saved {path.absolute()}")

        self.ask("save picture as", done, name)

    def action_next_view(self, by: int) -> None:
        self.action_show_view(self.viewing.next_view(by))

    def action_choose(self, by: int) -> None:
        if self.view is not None:
            self.view.choose(by)

    def action_enter(self) -> None:
        if self.view is not None:
            self.view.enter()

    def action_leave(self) -> None:
        """Out of the innermost thing entered."""
        view = self.view
        if not (view is not None and (view.leave() or view.leave_pane())):
            self.viewing.steps.leave()
        self.acted()

    def action_go(self, across: int, down: int) -> None:
        if self.view is not None:
            self.view.go(across, down)

    def action_origin(self) -> None:
        if self.view is not None:
            self.view.go_to_origin()

    def action_refresh_runs(self) -> None:
        if self.view is not None:
            self.view.look()

    def show_chart(self, key: str, step: int | None = None) -> None:
        """One chart in full, with the cursor at a step where one is given."""
        if key not in self.model.groups:
            self.say(f"{key} has no chart: its values are not in this run")
            return
        self.viewing.pattern = ""
        self.viewing.selected = key
        self.viewing.alone = True
        if step is not None:
            self.viewing.steps.put(step)
        self.action_show_view("metrics")

    def show_heatmap(self, key: str) -> None:
        """One metric over layers and steps."""
        self.viewing.heatmap = key
        self.action_show_view("layers")

    def show_site(self, name: str) -> None:
        """A component in the graph."""
        self.action_show_view("graph")
        if self.view is not None:
            self.view.choose_site(name)

    def go_to_step(self, step: int) -> None:
        """The charts with the cursor at a step; a replay is played to it."""
        if self.replaying is not None:
            self.seek(step)
        self.viewing.steps.put(step)
        self.viewing.alone = False
        self.action_show_view("metrics")

    @on(ViewBar.Chosen)
    def _chosen(self, message: ViewBar.Chosen) -> None:
        view: ViewName = message.view
        self.action_show_view(view)
