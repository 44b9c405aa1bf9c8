"""The layers: one metric over all layers (or heads) and steps, as large as the screen allows."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal

from monitor.chart_data import heat_data
from monitor.charts.chart_pane import ChartPane
from monitor.charts.heatmap import Heat, layer_of_row, rows_for
from monitor.charts.heatmap_pane import HeatmapPane
from monitor.charts.raster import values_at
from monitor.formatting import clipped
from monitor.help_topics import HelpTopic, metric_topics
from monitor.metric_groups import MetricGroup, heads_key, whole_key
from monitor.views import chart_page
from monitor.views.view import View
from monitor.widgets.head_map import HeadMap
from monitor.widgets.layer_profile import LayerProfile
from monitor.widgets.list_window import stepped
from monitor.widgets.text_pane import TextPane

TALL = 8
"""Lines a layer takes at most."""
ROOM_FOR_HEADS = 100
"""Columns of the screen below which heads are not drawn beside the layers."""


class LayersView(View):
    """One metric over all layers and steps."""

    view_name = "layers"
    main_pane = "layers-heat"

    def __init__(self) -> None:
        super().__init__()
        self._row = 0
        self._heat: Heat | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="layers-main"):
            yield HeatmapPane(id="layers-heat").add_class("pane")
            yield HeadMap(id="layers-heads").add_class("pane")
            yield LayerProfile(id="profile").add_class("pane")
        yield TextPane(id="layers-note")
        yield ChartPane(id="layers-chart").add_class("companion")

    def draw(self) -> None:
        app = self.monitor
        heatmap, profile = self.query_one(HeatmapPane), self.query_one(LayerProfile)
        key = app.viewing.heatmap_key(app.model)
        self._heat = None
        if key is None:
            heatmap.show("Layers", None, "", "waiting for a metric that has layers")
            profile.show("", None, (), None)
            self.query_one(HeadMap).show((), None)
            return
        group = app.model.groups[key]
        diagnosis = app.shown.diagnosis.diagnosis
        data = heat_data(
            app.model, app.viewing, diagnosis, key, heatmap.columns, app.comparison, TALL
        )
        title = f"{key} · {self._axis_name(group)} × step · {self._place(key)}{data.title}"
        self.query_one(TextPane).show(self._note(group))
        chart_page.companion(self.query_one(ChartPane), app, key)
        heat = self._heat = data.heat
        if heat is None:
            heatmap.show(title, None, "", data.note)
            profile.show("", None, (), None)
            self.query_one(HeadMap).show((), None)
            return
        self._row = min(self._row, len(heat.labels) - 1)
        unit = group.metric.unit if group.metric else ""
        cursor = app.viewing.steps.cursor
        heatmap.show(title, heat, unit, chosen=heat.labels[self._row], cursor=cursor)
        step = cursor if cursor is not None else heat.span[1]
        values = values_at(data.curves, step)
        profile.show(f"at step {step}", heat, values, self._row)
        self.query_one(HeadMap).show([] if data.name else self._heads(key, heat, step), heat)

    def _place(self, key: str) -> str:
        keys = self.monitor.viewing.layered_keys(self.monitor.model)
        return f"{keys.index(key) + 1} of {len(keys)}"

    @staticmethod
    def _axis_name(group: MetricGroup) -> str:
        return "head" if group.of_heads else "layer"

    def _heads(self, key: str, heat: Heat, step: int) -> list[list[float]]:
        """Values of every layer's heads at a step; empty where there are none, or no room."""
        if self.app.size.width < ROOM_FOR_HEADS:
            return []
        model = self.monitor.model
        groups = [model.groups.get(heads_key(key, layer)) for layer in heat.labels]
        return [
            [model.column_value(m.column, step) for m in group.members] if group else []
            for group in groups
        ]

    def _note(self, group: MetricGroup) -> tuple[tuple[str, str], ...]:
        metric = group.metric
        if metric is None:
            return ()
        absent = self.monitor.model.absence(group.key)
        if absent and not self.monitor.model.measured(group.key):
            return (("not measured: ", "muted"), (absent, "fg"))
        healthy = f"   healthy: {metric.healthy}"
        room = self.query_one(TextPane).content_size.width - len(healthy)
        return ((clipped(metric.meaning, room), "fg"), (healthy, "muted"))

    def choose(self, by: int) -> None:
        if self._heat is not None:
            self._row = stepped(self._row, by, len(self._heat.labels))
            self.monitor.acted()

    def leave(self) -> bool:
        """From the heads of a layer to all layers."""
        key = self.monitor.viewing.heatmap
        if key is None or whole_key(key) == key:
            return False
        self.monitor.viewing.heatmap = whole_key(key)
        return True

    def help_topics(self) -> list[HelpTopic]:
        app = self.monitor
        return metric_topics(app.model, app.viewing.heatmap_key(app.model))

    def enter(self) -> None:
        key = self.monitor.viewing.heatmap_key(self.monitor.model)
        if key is not None:
            self.monitor.show_chart(key)

    @on(HeatmapPane.Clicked)
    def _clicked(self, message: HeatmapPane.Clicked) -> None:
        heat = self._heat
        if heat is None:
            return
        body = self.query_one(HeatmapPane).content_size.height - 2
        layers = len(heat.labels)
        if message.line < rows_for(layers, body, heat.tall):
            self._row = layer_of_row(message.line, layers, body, heat.tall)
            if message.twice:
                self.enter()
