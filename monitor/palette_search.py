"""The palette's search through the run itself: its charts, its components, the panes on screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import Hit, Hits, Provider

from monitor.widgets.pane_title import title_text

if TYPE_CHECKING:
    from monitor.app import MonitorApp

Place = tuple[str, str, Callable[[], None]]


def places(app: MonitorApp) -> Iterator[Place]:
    """Name, what going there does, and going there."""
    for key in app.model.groups:
        yield f"Chart: {key}", "this chart alone", partial(app.show_chart, key)
    for key in app.viewing.layered_keys(app.model):
        yield f"Heatmap: {key}", "over layers and steps", partial(app.show_heatmap, key)
    anatomy = app.shown.anatomy
    for site in anatomy.sites if anatomy else ():
        yield f"Component: {site.name}", "in the graph", partial(app.show_site, site.name)
    for index, target in enumerate(app.view.targets() if app.view is not None else []):
        title = title_text(target.widget) or target.widget.id or f"chart {index + 1}"
        yield f"Pane: {title}", "choose this pane", partial(app.go_to_pane, target.go)


class RunSearch(Provider):
    """What the palette finds besides the commands of the key table."""

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for name, told, go in places(cast("MonitorApp", self.app)):
            score = matcher.match(name)
            if score > 0:
                yield Hit(score, matcher.highlight(name), go, text=name, help=told)
