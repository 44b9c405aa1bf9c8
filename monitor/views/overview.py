"""The overview: graph, diagnosis, a few charts, a heatmap, the newest events."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal
from textual.events import Click

from monitor.chart_data import HeatData, heat_data
from monitor.charts.heatmap_pane import HeatmapPane
from monitor.help_topics import HelpTopic, cause_topic, metric_topics, site_topic
from monitor.in_pieces import Piece
from monitor.view_names import ViewName
from monitor.views import chart_page
from monitor.views.view import View
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.diagnosis_pane import DiagnosisPane
from monitor.widgets.event_log import EventLog
from monitor.widgets.graph_pane import GraphPane

_LEADS_TO: dict[str, ViewName] = {
    "graph": "graph",
    "diagnosis": "diagnosis",
    "heatmap": "layers",
    "events": "events",
}
"""The view that shows a pane of the overview in full."""


class Overview(View):
    """The state of the run at a glance."""

    DEFAULT_CLASSES = "-quiet"
    view_name = "overview"
    main_pane = "charts"

    def compose(self) -> ComposeResult:
        with Horizontal(id="main"):
            yield GraphPane(id="graph").add_class("pane")
            with Container(id="right"):
                yield DiagnosisPane(id="diagnosis").add_class("pane")
                yield ChartGrid(id="charts").add_class("pane")
                yield HeatmapPane(id="heatmap").add_class("pane")
        yield EventLog(id="events").add_class("pane")

    def pieces(self) -> Sequence[Piece]:
        grid = self.query_one(ChartGrid)
        charts = chart_page.pieces(grid, self.monitor) if grid.display else ()
        return (self._draw_state, *charts, self._draw_heatmap)

    def preparations(self) -> Sequence[Piece]:
        grid = self.query_one(ChartGrid)
        charts = chart_page.preparations(grid, self.monitor) if grid.display else ()
        return (*charts, self._heat_data)

    def _draw_state(self) -> None:
        shown = self.monitor.shown
        diagnosis = shown.diagnosis.diagnosis
        graph = self.query_one(GraphPane)
        graph.show(shown.anatomy, diagnosis)
        self.size_pane(graph, width=graph.wanted_width(self.size.width))
        # A quiet diagnosis leaves its room to the charts.
        faulty = diagnosis is not None and diagnosis.verdict == "faulty"
        self.set_class(not faulty, "-quiet")
        self.query_one(DiagnosisPane).show(shown.diagnosis)
        self.query_one(EventLog).show(shown.events)

    def _draw_heatmap(self) -> None:
        app, heatmap = self.monitor, self.query_one(HeatmapPane)
        key, data = app.viewing.heatmap_key(app.model), self._heat_data()
        if not heatmap.display:
            return
        if key is None or data is None:
            heatmap.show("Heatmap", None, "", "waiting for a metric that has layers")
            return
        metric = app.model.groups[key].metric
        title = f"Heatmap · {key}{data.title}"
        unit, cursor = metric.unit if metric else "", app.viewing.steps.cursor
        heatmap.show(title, data.heat, unit, data.note, cursor=cursor)

    def _heat_data(self) -> HeatData | None:
        """What the heatmap shows; kept, so that asking again is quick."""
        app, heatmap = self.monitor, self.query_one(HeatmapPane)
        key = app.viewing.heatmap_key(app.model)
        if key is None or not heatmap.display:
            return None
        diagnosis = app.shown.diagnosis.diagnosis
        return heat_data(app.model, app.viewing, diagnosis, key, heatmap.columns, app.comparison)

    def help_topics(self) -> list[HelpTopic]:
        """Of the pane chosen: the cause, the origin, the heatmap's metric; else the chart's."""
        app, current = self.monitor, self.choice.current
        diagnosis = app.shown.diagnosis.diagnosis
        if current == "diagnosis" and diagnosis is not None:
            return cause_topic(diagnosis.category, diagnosis.root_cause) or super().help_topics()
        if current == "heatmap":
            return metric_topics(app.model, app.viewing.heatmap_key(app.model))
        anatomy, origin = app.shown.anatomy, self.query_one(GraphPane).origin
        site = anatomy.site(origin) if anatomy is not None and origin else None
        if current == "graph" and site is not None and diagnosis is not None:
            return [site_topic(site, diagnosis.suspicion.get(site.name))]
        return super().help_topics()

    def enter(self) -> None:
        leads_to = _LEADS_TO.get(self.choice.current or "")
        if leads_to is not None:
            self.monitor.action_show_view(leads_to)
            return
        self.monitor.viewing.alone = True
        self.monitor.action_show_view("metrics")

    @on(GraphPane.Clicked)
    def _component_clicked(self, message: GraphPane.Clicked) -> None:
        if message.twice:
            self.monitor.show_site(message.site)

    def on_click(self, event: Click) -> None:
        """A double click does what Enter does; a chart's is told by the chart."""
        leads_to = _LEADS_TO.get(self.choice.current or "")
        if event.chain == 2 and leads_to is not None:
            self.monitor.action_show_view(leads_to)

    @on(ChartGrid.Reshaped)
    def _reshaped(self) -> None:
        self.redraw_if_shown()
