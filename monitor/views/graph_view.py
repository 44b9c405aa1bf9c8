"""The graph in full: walk from component to component, enter one to see what it measures."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from monitor.charts.chart_pane import ChartPane
from monitor.help_topics import HelpTopic, metric_topics, site_topic
from monitor.metric_groups import group_key
from monitor.views import chart_page
from monitor.views.view import View
from monitor.widgets.graph_pane import GraphPane
from monitor.widgets.list_window import stepped
from monitor.widgets.site_pane import Measure, SiteData, SitePane


class GraphView(View):
    """Where in the model a fault sits."""

    view_name = "graph"
    main_pane = "big-graph"

    def __init__(self) -> None:
        super().__init__()
        self._site: str | None = None
        self._layer = 0
        self._metric: int | None = None
        """Place of the chosen metric; None: outside the site."""

    def compose(self) -> ComposeResult:
        with Horizontal(id="graph-main"):
            yield GraphPane(id="big-graph").add_class("pane")
            with Vertical(id="site-column"):
                yield SitePane(id="site").add_class("pane")
                yield ChartPane(id="site-chart").add_class("companion")

    def draw(self) -> None:
        app = self.monitor
        graph, pane = self.query_one("#big-graph", GraphPane), self.query_one(SitePane)
        diagnosis = app.shown.diagnosis.diagnosis
        anatomy = app.shown.anatomy
        if anatomy is not None and (self._site is None or anatomy.site(self._site) is None):
            # First time, or another model: begin where the fault is.
            suspicion = diagnosis.suspicion if diagnosis else {}
            self._put(max(suspicion, key=lambda site: suspicion[site], default=None))
            self._metric = None
        self.size_pane(graph, width=self._graph_width(graph))
        graph.show(anatomy, diagnosis, self._site)
        if anatomy is not None and self._site is None:
            self._move(0, 0)
            graph.show(anatomy, diagnosis, self._site)
        data = self._site_data(graph)
        pane.show(data)
        # Before the site is entered: its first metric.
        chosen = data.measures[data.chosen or 0].name if data and data.measures else None
        key = group_key(self._site, chosen) if chosen and self._site else None
        chart_page.companion(self.query_one(ChartPane), app, key)

    def _graph_width(self, graph: GraphPane) -> int:
        layout = graph.layout_of_model
        layers = layout.layers if layout else 4
        return max(30, min(16 + layers * 7, self.size.width - 44))

    def _put(self, site: str | None) -> None:
        self._site = site
        anatomy = self.monitor.shown.anatomy
        found = anatomy.site(site) if anatomy and site else None
        if found is not None and found.layer is not None:
            self._layer = found.layer

    def _measures(self) -> tuple[Measure, ...]:
        app = self.monitor
        header = app.model.header
        if header is None or self._site is None:
            return ()
        node = self._site.partition("@")[0].rpartition(".")[2]
        viewing = app.viewing
        step = viewing.steps.cursor if viewing.steps.cursor is not None else viewing.frozen
        found = []
        for index, column in enumerate(header.columns):
            if column.site != self._site:
                continue
            value = app.model.column_value(index, step, viewing.rank)
            absent = header.absent.get(column.key) or header.absent.get(f"{node}/{column.metric}")
            found.append(
                Measure(column.metric, header.metric(column.metric, node), value, absent or "")
            )
        # What was not measured comes last.
        return tuple(sorted(found, key=lambda measure: measure.value != measure.value))

    def _site_data(self, graph: GraphPane) -> SiteData | None:
        app = self.monitor
        anatomy = app.shown.anatomy
        site = anatomy.site(self._site) if anatomy and self._site else None
        if site is None:
            return None
        diagnosis = app.shown.diagnosis.diagnosis
        measures = self._measures()
        if self._metric is not None:
            self._metric = min(self._metric, len(measures) - 1) if measures else None
        return SiteData(
            site=site,
            measures=measures,
            suspicion=diagnosis.suspicion.get(site.name) if diagnosis else None,
            origin=graph.origin == site.name,
            step=app.viewing.steps.cursor,
            chosen=self._metric,
        )

    def choose_site(self, name: str) -> None:
        """Stand at a component by its name."""
        self._metric = None
        self._put(name)
        self.monitor.acted()

    def go(self, across: int, down: int) -> None:
        """Move to the next component, or inside a site to the next metric."""
        if self._metric is not None:
            count = len(self._measures())
            self._metric = stepped(self._metric, down, max(count, 1))
            if across:
                self._move(across, 0)
        else:
            self._move(across, down)
        self.monitor.acted()

    def _move(self, across: int, down: int) -> None:
        layout = self.query_one("#big-graph", GraphPane).layout_of_model
        if layout is not None and layout.rows:
            self._site, self._layer = layout.moved(self._site, self._layer, across, down)

    def go_to_origin(self) -> None:
        """Choose the site where the fault seems to start."""
        origin = self.query_one("#big-graph", GraphPane).origin
        if origin is None:
            self.monitor.say("no fault is flagged: there is no origin")
            return
        self._put(origin)
        self.monitor.acted()

    def choose(self, by: int) -> None:
        """Go through the metrics of the site, from outside it to the first."""
        count = len(self._measures())
        if count:
            at = -1 if self._metric is None else self._metric
            self._metric = stepped(at, by, count)
            self.monitor.acted()

    @on(GraphPane.Clicked)
    def _component_clicked(self, message: GraphPane.Clicked) -> None:
        self.choose_site(message.site)
        if message.twice:
            self.enter()

    @on(SitePane.Clicked)
    def _metric_clicked(self, message: SitePane.Clicked) -> None:
        self._metric = message.index
        self.monitor.acted()
        if message.twice:
            self.enter()

    def enter(self) -> None:
        measures = self._measures()
        if not measures:
            self.monitor.say(f"nothing is measured at {self._site}")
        elif self._metric is None:
            self._metric = 0
            self.monitor.acted()
        elif self._site is not None:
            self.monitor.show_chart(group_key(self._site, measures[self._metric].name))

    def help_topics(self) -> list[HelpTopic]:
        app = self.monitor
        anatomy = app.shown.anatomy
        site = anatomy.site(self._site) if anatomy and self._site else None
        if site is None:
            return []
        diagnosis = app.shown.diagnosis.diagnosis
        suspicion = diagnosis.suspicion.get(site.name) if diagnosis else None
        found = [site_topic(site, suspicion)]
        if self._metric is not None:
            name = self._measures()[self._metric].name
            found += metric_topics(app.model, group_key(site.name, name))
        return found

    @property
    def labels(self) -> dict[str, str]:
        return {"enter": "Its chart"} if self._metric is not None else {}

    def leave(self) -> bool:
        was, self._metric = self._metric, None
        return was is not None
