"""The actions of the keys that choose charts and steps."""

from __future__ import annotations

from textual import on

from monitor.app_base import AppBase
from monitor.chart_data import cursor_steps, whole_span
from monitor.charts.chart_pane import ChartPane
from monitor.charts.heatmap_pane import HeatmapPane
from monitor.charts.step_pane import StepPane
from monitor.step_window import Span
from monitor.viewing import pattern_error
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.metric_picker import MetricPicker

WHEEL_ZOOM = 0.8


class ChartActions(AppBase):
    """Part of the application."""

    @property
    def _whole(self) -> Span:
        return whole_span(self.model, self.viewing, self.comparison)

    def action_cursor(self, by: int) -> None:
        steps = cursor_steps(self.model, self.viewing, self.comparison)
        self.viewing.steps.move(steps, by, self._whole)
        self.acted()

    def action_zoom(self, factor: float) -> None:
        self.viewing.steps.zoom(factor, self._whole)
        self.acted()

    def action_pan(self, share: float) -> None:
        if self.viewing.steps.zoomed is None:
            self.say("all steps are shown: zoom in first (+)")
            return
        self.viewing.steps.pan(share, self._whole)
        self.acted()

    def action_zoom_all(self) -> None:
        self.viewing.steps.zoomed = None
        self.acted()

    @on(StepPane.Wheeled)
    def _wheeled(self, message: StepPane.Wheeled) -> None:
        factor = WHEEL_ZOOM if message.inwards else 1 / WHEEL_ZOOM
        self.viewing.steps.zoom(factor, self._whole, message.step)
        self.acted()

    @on(StepPane.Panned)
    def _panned(self, message: StepPane.Panned) -> None:
        self.viewing.steps.pan(message.share, self._whole)
        self.acted()

    @on(ChartPane.Clicked)
    def _clicked(self, message: ChartPane.Clicked) -> None:
        self._put_cursor(message.step)
        if message.title in self.model.groups:
            self.viewing.selected = message.title
            if message.twice:
                alone = self.viewing.view == "metrics" and self.viewing.alone
                self.viewing.alone = not alone
                self.action_show_view("metrics")
        self.acted()

    @on(HeatmapPane.Clicked)
    def _heatmap_clicked(self, message: HeatmapPane.Clicked) -> None:
        self._put_cursor(message.step)
        self.acted()

    def _put_cursor(self, step: float) -> None:
        """The cursor at the sample nearest to a step."""
        steps = cursor_steps(self.model, self.viewing, self.comparison)
        if len(steps):
            self.viewing.steps.cursor = int(steps[abs(steps - step).argmin()])

    def action_filter(self) -> None:
        before = self.viewing.pattern

        def done(value: str | None) -> None:
            pattern = before if value is None else value
            error = pattern_error(pattern)
            self._filter(before if error else pattern)
            if error:
                self.say(error)

        self.ask("filter charts (regex)", done, before, self._filter)

    def _filter(self, pattern: str) -> None:
        self.viewing.pattern = pattern
        self.message = ""
        self.draw()

    def action_next_chart(self, by: int) -> None:
        self.viewing.move(self.viewing.keys(self.model), by)
        self.acted()

    def action_next_page(self, by: int) -> None:
        keys = self.viewing.keys(self.model)
        places = self.view.query_one(ChartGrid).places if self.view is not None else 1
        start, _ = self.viewing.page(keys, places)
        pages = -(-len(keys) // places)
        if keys:
            self.viewing.selected = keys[(start // places + by) % pages * places]
        self.acted()

    def action_toggle_log(self) -> None:
        keys = self.viewing.keys(self.model)
        if keys:
            self.viewing.log_toggled ^= {keys[self.viewing.chosen(keys)]}
        self.acted()

    def action_toggle_time(self) -> None:
        self.viewing.by_time = not self.viewing.by_time
        self.message = "charts over wall-clock time" if self.viewing.by_time else ""
        self.message = self.message or "charts over steps"
        self.draw()

    def action_smooth(self) -> None:
        self.viewing.smooth_more()
        self.acted()

    def action_grid(self) -> None:
        count = self.viewing.change_grid()
        self.message = f"{count} chart{'s' if count > 1 else ''} at once" if count else ""
        self.message = self.message or "as many charts as fit"
        self.draw()

    def action_choose_heatmap(self) -> None:
        keys = self.viewing.heat_keys(self.model)
        if not keys:
            self.say("no metric with layers has been read yet")
            return
        current = self.viewing.heatmap_key(self.model)
        self.push_screen(MetricPicker(keys, current), self._heatmap_chosen)

    def _heatmap_chosen(self, key: str | None) -> None:
        if key is not None:
            self.viewing.heatmap = key
            self.acted()

    def action_next_heatmap(self, by: int) -> None:
        keys = self.viewing.layered_keys(self.model)
        current = self.viewing.heatmap_key(self.model)
        if current in keys:
            self.viewing.heatmap = keys[(keys.index(current) + by) % len(keys)]
            self.acted()
