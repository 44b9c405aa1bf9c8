"""The application: one screen, a timer that draws what changed, the actions behind the keys.

Threads read the source and run the diagnosis; they hand over through queues and this timer takes
from them. Nothing here imports torch: the first screen does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from textual import on
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import BindingType
from textual.containers import Container, Horizontal
from textual.screen import Screen
from textual.timer import Timer

from monitor.charts.heatmap_pane import HeatmapPane
from monitor.controlling import Controlling
from monitor.diagnosing import Diagnosing, DiagnosisState, EngineFactory
from monitor.keys import bindings, keys_for, works
from monitor.palette import THEMES
from monitor.reader import Reader
from monitor.replay_actions import ReplayActions
from monitor.replaying import Replaying
from monitor.run_model import RunModel
from monitor.screen_data import footer_labels, header_data, status_of
from monitor.sources.source import Batch, Source
from monitor.viewing import VIEWS, Viewing, chart_data, heat_data, pattern_error
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.diagnosis_pane import DiagnosisPane
from monitor.widgets.event_log import EventLog
from monitor.widgets.graph_pane import GraphPane
from monitor.widgets.help_screen import HelpScreen
from monitor.widgets.key_footer import KeyFooter
from monitor.widgets.metric_picker import MetricPicker
from monitor.widgets.prompt import Prompt
from monitor.widgets.run_header import RunHeader
from monitor.widgets.status_line import StatusLine
from probe.schema import Event, Header

MIN_FPS, MAX_FPS = 0.5, 30.0
_WIDTH_CLASSES = ((0, "-narrow"), (100, "-medium"), (160, "-wide"))
_HEIGHT_CLASSES = ((0, "-short"), (32, "-tall"))


class MonitorApp(ReplayActions, App[None]):
    """The monitor of one run.

    ``engine_factory`` makes the diagnosis of a header; None loads the product's, in a thread.
    ``ascii`` draws with ASCII characters only. ``fps`` bounds how often the screen is redrawn;
    values outside 0.5 .. 30 are clamped. ``theme`` is a Textual theme's name, None ours, dark.
    """

    CSS_PATH = "monitor.tcss"
    TITLE = "defaultpp-monitor"
    ENABLE_COMMAND_PALETTE = True
    AUTO_FOCUS = ""
    """Nothing has the keyboard until a prompt asks for it."""
    BINDINGS: ClassVar[list[BindingType]] = [*bindings()]

    def __init__(
        self,
        source: Source,
        *,
        engine_factory: EngineFactory | None = None,
        ascii: bool = False,
        fps: float = 4,
        theme: str | None = None,
        title: str | None = None,
    ) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = list(_WIDTH_CLASSES)
        self.VERTICAL_BREAKPOINTS = list(_HEIGHT_CLASSES)
        self.ascii_only = ascii
        self.run_title = title or source.title
        self.model = RunModel()
        self.viewing = Viewing()
        self.diagnosis = DiagnosisState()
        self.replaying = Replaying.of(source)
        self.diagnosing = Diagnosing(engine_factory)
        self.reader = Reader(source, self.diagnosing.feed)
        self.controlling = Controlling(source, self._on_reply)
        self._fps = min(max(fps, MIN_FPS), MAX_FPS)
        self._timer: Timer | None = None
        self._seen: tuple[object, ...] = ()
        self._message = ""
        self._diagnoses = 0
        self._noted_flag: int | None = None
        self.known_flag: int | None = None
        """First flagged step of this run, kept when a replay goes back before it."""
        for own in THEMES:
            self.register_theme(own)
        self.theme = theme if theme in self.available_themes else THEMES[0].name

    def compose(self) -> ComposeResult:
        yield RunHeader(id="header")
        with Horizontal(id="main"):
            yield GraphPane(id="graph").add_class("pane")
            with Container(id="right"):
                yield DiagnosisPane(id="diagnosis").add_class("pane")
                yield ChartGrid(id="charts").add_class("pane")
                yield HeatmapPane(id="heatmap").add_class("pane")
        yield EventLog(id="events").add_class("pane")
        yield StatusLine(id="status")
        yield Prompt(id="prompt")
        yield KeyFooter(keys_for(self.is_replay), id="footer")

    @property
    def is_replay(self) -> bool:
        """The source is a saved trace."""
        return self.replaying is not None

    def on_mount(self) -> None:
        self.screen.set_class(self.ascii_only, "-ascii")
        self.theme_changed_signal.subscribe(self, lambda _: self.draw())
        self.reader.start()
        self.controlling.start()
        self._start_timer()
        # The engine's imports hold the interpreter for seconds: the first picture goes before.
        self.call_after_refresh(self.diagnosing.start)

    def _start_timer(self) -> None:
        self._timer = self.set_interval(1 / self._fps, self.tick)

    def on_unmount(self) -> None:
        self.controlling.stop()
        self.diagnosing.stop()
        self.reader.stop()

    def tick(self) -> None:
        """Take in what was read since the last time; draw if anything changed."""
        for batch in self.reader.drain():
            self._take(batch)
        state = self.diagnosing.state
        if state is not self.diagnosis:
            self._take_diagnosis(state)
        position = self.replaying.position if self.replaying else None
        now = (self.model.version, self._diagnoses, position)
        if now != self._seen:
            self._seen = now
            self.draw()

    def _take(self, batch: Batch) -> None:
        link = self.model.link
        run = self.model.header
        self.model.take(batch)
        if any(isinstance(record, Header) and record.revision == 0 for record in batch.records):
            self._noted_flag = None
            self.viewing.frozen = None
            if run is not None and self.model.header is not None:
                self.known_flag = self.known_flag if run.run == self.model.header.run else None
        if batch.link != link and batch.link in ("lost", "ended"):
            self.model.note(batch.text or f"the run is {batch.link}", kind=batch.link)

    def _take_diagnosis(self, state: DiagnosisState) -> None:
        self.diagnosis = state
        self._diagnoses += 1
        found = state.diagnosis
        self.viewing.promote(found)
        if found is None or found.verdict != "faulty" or found.first_flagged_step is None:
            return
        self.known_flag = found.first_flagged_step
        if self._noted_flag != found.first_flagged_step:
            self._noted_flag = found.first_flagged_step
            name = f"{found.category}/{found.root_cause}" if found.root_cause else "cause unknown"
            self.model.note(f"faulty: {name}", "flagged", found.first_flagged_step)

    def draw(self) -> None:
        """Give every pane its data; each redraws only the lines that changed."""
        if not self.is_running or not self.screen_stack:
            return
        base = self.screen_stack[0]
        frozen = self.viewing.frozen is not None
        base.query_one(RunHeader).show(
            header_data(self.model, self.viewing, self.run_title, self.replaying)
        )
        labels = footer_labels(self.viewing, self.replaying, self.controlling.pausing)
        base.query_one(KeyFooter).show(labels)
        base.query_one(StatusLine).show(*status_of(self.model, self.viewing, self._message))
        if not frozen:
            header = self.model.header
            diagnosis = self.diagnosis.diagnosis
            graph = base.query_one(GraphPane)
            graph.show(header.anatomy if header else None, diagnosis)
            graph.styles.width = graph.wanted_width(self.size.width)
            # A quiet diagnosis leaves its room to the charts.
            faulty = diagnosis is not None and diagnosis.verdict == "faulty"
            base.set_class(not faulty, "-quiet")
            base.query_one(DiagnosisPane).show(self.diagnosis)
            base.query_one(EventLog).show(tuple(sorted(self.model.events, key=_step_of)))
        self.draw_charts()

    def draw_charts(self) -> None:
        """The charts and the heatmap alone."""
        base = self.screen_stack[0]
        diagnosis = self.diagnosis.diagnosis
        grid, heatmap = base.query_one(ChartGrid), base.query_one(HeatmapPane)
        if grid.display:
            keys = self.viewing.keys(self.model)
            start, page = self.viewing.page(keys, grid.places)
            chosen = self.viewing.chosen(keys)
            charts = [
                chart_data(self.model, self.viewing, diagnosis, key, start + index == chosen)
                for index, key in enumerate(page)
            ]
            grid.show(self._charts_title(start, len(page), len(keys)), charts)
        if heatmap.display:
            chosen_key = self.viewing.heatmap_key(self.model)
            if chosen_key is None:
                heatmap.show("Heatmap", None, "", "waiting for a metric that has layers")
                return
            metric = self.model.groups[chosen_key].metric
            found = heat_data(self.model, self.viewing, diagnosis, chosen_key, heatmap.columns)
            heatmap.show(f"Heatmap · {chosen_key}", found, metric.unit if metric else "")

    def _charts_title(self, start: int, shown: int, total: int) -> str:
        shown_range = f"{start + 1}–{start + shown}" if shown > 1 else f"{start + 1}"
        title = f"Charts · {shown_range} of {total}" if total else "Charts · none"
        return f"{title} · filter {self.viewing.pattern}" if self.viewing.pattern else title

    @on(ChartGrid.Reshaped)
    def _grid_reshaped(self) -> None:
        self.draw_charts()

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def say(self, text: str) -> None:
        """Show a sentence in the status line, until the next key, and in the event log."""
        self._message = text
        self.model.note(text)
        self.draw()

    def _on_reply(self, text: str) -> None:
        """Called in the control thread."""
        if self.is_running:
            self.call_later(self.say, text)

    # Actions; each is one row of the key table.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that do not belong to this kind of source do nothing."""
        return works(action, self.is_replay)

    def action_toggle_view(self) -> None:
        if self.replaying is not None:
            self.action_toggle_play()
            return
        paused = self.viewing.frozen is not None
        self.viewing.frozen = None if paused else (self.model.step or 0)
        self.acted()

    def action_toggle_training(self) -> None:
        held = self.controlling.pausing or self.model.state == "paused"
        (self.controlling.resume if held else self.controlling.pause)()
        self.acted()

    def action_sample(self) -> None:
        self.controlling.sample()

    def ask(self, label: str, done: Callable[[str | None], None]) -> None:
        """Ask for a line of text in place of the status line."""
        self.query_one(Prompt).ask(label, "", done)

    def action_filter(self) -> None:
        before = self.viewing.pattern

        def done(value: str | None) -> None:
            pattern = before if value is None else value
            error = pattern_error(pattern)
            self._filter(before if error else pattern)
            if error:
                self.say(error)

        self.query_one(Prompt).ask("filter charts (regex)", before, done, self._filter)

    def _filter(self, pattern: str) -> None:
        self.viewing.pattern = pattern
        self._message = ""
        self.draw()

    def _move(self, by: int) -> None:
        self.viewing.move(self.viewing.keys(self.model), by)
        self.acted()

    def action_next_chart(self) -> None:
        self._move(1)

    def action_previous_chart(self) -> None:
        self._move(-1)

    def action_next_page(self) -> None:
        self._move_page(1)

    def action_previous_page(self) -> None:
        self._move_page(-1)

    def _move_page(self, by: int) -> None:
        keys = self.viewing.keys(self.model)
        places = self.query_one(ChartGrid).places
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

    def action_choose_heatmap(self) -> None:
        keys = [key for key, group in self.model.groups.items() if group.layered]
        if not keys:
            self.say("no metric with layers has been read yet")
            return
        keys.sort(key=lambda key: not self.model.measured(key))
        current = self.viewing.heatmap_key(self.model)
        self.push_screen(MetricPicker(keys, current), self._heatmap_chosen)

    def _heatmap_chosen(self, key: str | None) -> None:
        if key is not None:
            self.viewing.heatmap = key
            self.acted()

    def action_next_view(self) -> None:
        self.viewing.view = VIEWS[(VIEWS.index(self.viewing.view) + 1) % len(VIEWS)]
        for view in VIEWS:
            self.screen.set_class(view == self.viewing.view, f"-view-{view}")
        self._message = ""
        self.call_after_refresh(self.draw)

    def action_help(self) -> None:
        keys = self.viewing.keys(self.model)
        key = keys[self.viewing.chosen(keys)] if keys else None
        group = self.model.groups.get(key) if key else None
        absent = self.model.absence(key) if key and not self.model.measured(key) else ""
        self.push_screen(HelpScreen(keys_for(self.is_replay), group, absent))

    def action_suspend_process(self) -> None:
        # A timer that fires while the app is suspended can deadlock its writer (textual 8.2.8).
        if self._timer is not None:
            self._timer.stop()
        super().action_suspend_process()
        self._start_timer()

    def acted(self) -> None:
        """After a key: what was said before is no news any more."""
        self._message = ""
        self.draw()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette offers the themes and every key's command."""
        yield SystemCommand("Theme", "change the colours", self.action_change_theme)
        for key in keys_for(self.is_replay):
            title = key.footer or key.help.capitalize()
            action = key.action
            yield SystemCommand(
                title, f"{key.help} ({key.shown})", lambda action=action: self._run(action)
            )

    def _run(self, action: str) -> None:
        self.call_later(self.run_action, action)


def _step_of(event: Event) -> int:
    return event.step


__all__ = ["MonitorApp"]
