"""The palette's search through the run itself: its charts, its components, its metrics and root
causes explained, the panes on screen, and the other runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import Hit, Hits, Provider

from diagnoser.taxonomy import root_causes
from monitor.formatting import spoken
from monitor.help_topics import cause_topic, metric_topics
from monitor.run_catalogue import ListedRun
from monitor.sources.source import SourceError
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
    for key in app.model.groups:
        for topic in metric_topics(app.model, key):
            yield f"Explain: {key}", "what this metric means", partial(app.explain, topic)
    for cause in root_causes().values():
        for topic in cause_topic(cause.category, cause.name):
            name = f"Explain: {spoken(cause.category)} › {spoken(cause.name)}"
            yield name, "symptoms, what to check, repair", partial(app.explain, topic)
    for index, target in enumerate(app.view.targets() if app.view is not None else []):
        title = title_text(target.widget) or target.widget.id or f"chart {index + 1}"
        yield f"Pane: {title}", "choose this pane", partial(app.go_to_pane, target.go)


def runs(app: MonitorApp, found: Sequence[ListedRun]) -> Iterator[Place]:
    """Other runs, to be watched instead."""
    for listed in found:
        told = "live" if listed.kind == "live" else "recorded"
        yield f"Run: {listed.name}", f"{told}, {listed.run}", partial(app.watch_run, listed)


class RunSearch(Provider):
    """What the palette finds besides the commands of the key table."""

    _runs: tuple[ListedRun, ...] = ()

    async def startup(self) -> None:
        """Look for runs, in a thread: the list may lie on a slow file system."""
        try:
            self._runs = await asyncio.to_thread(cast("MonitorApp", self.app).find_runs)
        except SourceError:
            self._runs = ()

    async def search(self, query: str) -> Hits:
        app, matcher = cast("MonitorApp", self.app), self.matcher(query)
        for name, told, go in (*places(app), *runs(app, self._runs)):
            score = matcher.match(name)
            if score > 0:
                yield Hit(score, matcher.highlight(name), go, text=name, help=told)
