"""What all views share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from msgspec import Struct
from textual import on
from textual.containers import Container
from textual.dom import DOMNode
from textual.events import Click
from textual.widget import Widget

from monitor.help_topics import HelpTopic, metric_topics
from monitor.in_pieces import Piece
from monitor.pane_choice import PaneChoice
from monitor.run_catalogue import ListedRun
from monitor.view_names import ViewName
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.list_pane import ListPane

if TYPE_CHECKING:
    from monitor.app import MonitorApp


class Target(Struct, frozen=True):
    """Something that jump mode puts a letter on. ``go`` chooses it."""

    widget: Widget
    go: Callable[[], None]


class View(Container, can_focus=False):
    """A large area of the screen. It keeps its choices while another view is shown."""

    view_name: ViewName
    main_pane: str
    """Id of the pane that is meant while none is chosen."""

    @property
    def monitor(self) -> MonitorApp:
        """The app, by its own type."""
        return cast("MonitorApp", self.app)

    @property
    def panes(self) -> list[Widget]:
        """What can be chosen, hidden and enlarged, in order."""
        return list(self.query(".pane, .companion").results(Widget))

    @property
    def pane_ids(self) -> list[str]:
        """Ids of all panes."""
        return [pane.id or "" for pane in self.panes]

    @property
    def shown_ids(self) -> list[str]:
        """Ids of the panes on screen."""
        return [pane.id or "" for pane in self.panes if pane.display and pane.region.area]

    @property
    def choice(self) -> PaneChoice:
        """What was chosen among the panes of this view."""
        return self.monitor.viewing.choices.setdefault(self.view_name, PaneChoice())

    def arrange_panes(self) -> None:
        """Hide what is hidden, give an enlarged pane the whole view, mark the chosen one.

        A container all of whose panes are away is away too.
        """
        panes, choice = self.panes, self.choice
        alone = choice.alone(self.pane_ids)
        seen: dict[DOMNode, bool] = {}
        for pane in panes:
            shown = pane.id == alone if alone else pane.id not in choice.hidden
            pane.set_class(not shown, "-aside")
            pane.set_class(pane.id == alone, "-alone")
            pane.set_class(pane.id == choice.current, "-current")
            for node in pane.ancestors:
                if node is self:
                    break
                seen[node] = seen.get(node, False) or shown
        for node, holds in seen.items():
            node.set_class(not holds, "-aside")
            node.set_class(holds and alone is not None, "-holds")
        self.set_class(alone is not None, "-one-pane")

    @staticmethod
    def size_pane(pane: Widget, *, width: int | None = None, height: int | None = None) -> None:
        """Give a pane its size in cells; one that has the whole view keeps that."""
        for side, cells in (("width", width), ("height", height)):
            if cells is None:
                continue
            if not pane.has_class("-alone"):
                setattr(pane.styles, side, cells)
            elif pane.styles.inline.has_rule(side):
                setattr(pane.styles, side, None)

    def leave_pane(self) -> bool:
        """All panes again, where one was enlarged; False where none was."""
        was, self.choice.enlarged = self.choice.enlarged, None
        if was is not None:
            self.arrange_panes()
            self.call_after_refresh(self.redraw_if_shown)
        return was is not None

    def targets(self) -> list[Target]:
        """What jump mode leads to: every chart of a grid, and every other pane."""
        found = []
        for pane in self.panes:
            if not (pane.display and pane.region.area):
                continue
            if isinstance(pane, ChartGrid):
                found += [
                    Target(chart, partial(self._go, pane, chart.data.title))
                    for chart in pane.panes
                    if chart.data is not None
                ]
            else:
                found.append(Target(pane, partial(self._go, pane)))
        return found

    def _go(self, pane: Widget, chart: str | None = None) -> None:
        self.choice.current = pane.id
        if chart is not None:
            self.monitor.viewing.selected = chart

    def on_click(self, event: Click) -> None:
        """A click chooses the pane it falls on, where there are several."""
        shown = self.shown_ids
        nodes = event.widget.ancestors_with_self if event.widget is not None else []
        pane = next((node.id for node in nodes if node.id in shown), None)
        if pane is not None and len(shown) > 1 and pane != self.choice.current:
            self.choice.current = pane
            self.arrange_panes()
            self.monitor.acted()

    @on(ListPane.Wheeled)
    def _list_wheeled(self, message: ListPane.Wheeled) -> None:
        self.point_at(message.pane)
        self.choose(message.by)

    def point_at(self, pane: ListPane) -> None:
        """The mouse means this list; where a view has several, the keys do from now on too."""

    def draw(self) -> None:
        """Give every pane its data. Called when something changed and the view is on screen."""
        for piece in self.pieces():
            piece()

    def pieces(self) -> Sequence[Piece]:
        """The same as calls one after the other, each short. A view of few panes is one piece: it
        says how to :meth:`draw` instead."""
        return (self.draw,)

    def preparations(self) -> Sequence[Piece]:
        """Calls that make ready what :meth:`pieces` will draw, each short; they show nothing."""
        return ()

    def entered(self) -> None:
        """The view came on screen."""

    def choose(self, by: int) -> None:
        """Choose another entry of the view's list; it stops at the ends, as the wheel does."""

    def enter(self) -> None:
        """Do what the chosen entry is for."""

    def go(self, across: int, down: int) -> None:
        """Choose a neighbour, where entries lie beside each other too."""

    def go_to_origin(self) -> None:
        """Choose where the fault seems to start."""

    def choose_site(self, name: str) -> None:
        """Choose a component of the model."""

    def look(self) -> None:
        """Look for runs again."""

    @property
    def chosen_run(self) -> ListedRun | None:
        """The run chosen in a list of runs."""
        return None

    def help_topics(self) -> list[HelpTopic]:
        """What is under the cursor, explained; the metric of the chosen chart unless a view says
        more."""
        app = self.monitor
        keys = app.viewing.keys(app.model)
        return metric_topics(app.model, keys[app.viewing.chosen(keys)]) if keys else []

    @property
    def labels(self) -> dict[str, str]:
        """What keys would do now, for the footer: label by action; others as the table says."""
        return {}

    def leave(self) -> bool:
        """Go out of what was entered; False where nothing was."""
        return False

    def on_mount(self) -> None:
        self.arrange_panes()
        self.call_after_refresh(self.monitor.view_shown, self)

    def on_resize(self) -> None:
        self.call_after_refresh(self.redraw_if_shown)

    def redraw_if_shown(self) -> None:
        """Draw again, unless the view or the app went away in the meantime."""
        if self.is_mounted and self.display and self.app.is_running:
            self.draw()
