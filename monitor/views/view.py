"""What all views share."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.containers import Container

from monitor.view_names import ViewName

if TYPE_CHECKING:
    from monitor.app import MonitorApp


class View(Container, can_focus=False):
    """A large area of the screen. It keeps its choices while another view is shown."""

    view_name: ViewName

    @property
    def monitor(self) -> MonitorApp:
        """The app, by its own type."""
        return cast("MonitorApp", self.app)

    def draw(self) -> None:
        """Give every pane its data. Called when something changed and the view is on screen."""
        raise NotImplementedError

    def entered(self) -> None:
        """The view came on screen."""

    def choose(self, by: int) -> None:
        """Choose another entry of the view's list."""

    def enter(self) -> None:
        """Do what the chosen entry is for."""

    def leave(self) -> bool:
        """Go out of what was entered; False where nothing was."""
        return False

    def on_mount(self) -> None:
        self.call_after_refresh(self.monitor.view_shown, self)

    def on_resize(self) -> None:
        self.call_after_refresh(self.redraw_if_shown)

    def redraw_if_shown(self) -> None:
        """Draw again, unless the view or the app went away in the meantime."""
        if self.is_mounted and self.display and self.app.is_running:
            self.draw()
