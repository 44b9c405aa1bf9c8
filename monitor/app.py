"""The application: views over one run, drawn when something changed, the actions behind the keys.

Threads read the source and run the diagnosis; they hand over through queues and say that there is
news. Without news nothing here runs. Nothing here imports torch: the first screen does not wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, cast

from textual import on
from textual.app import App, ComposeResult
from textual.containers import Container
from textual.driver import Driver
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer

from diagnoser.diagnosis import Diagnosis
from monitor.base_screen import HEIGHT_CLASSES, WIDTH_CLASSES, BaseScreen
from monitor.breakpoints import Breakpoints
from monitor.chart_actions import ChartActions
from monitor.compare_actions import CompareActions
from monitor.comparison import Comparison, Stoppable
from monitor.controlling import Controlling
from monitor.diagnosing import Diagnosing, EngineFactory
from monitor.diagnosis_history import DiagnosisHistory
from monitor.frugal_output import Pace, frugal
from monitor.gentle_picture import GentlePicture
from monitor.hearing import Hearing
from monitor.help_actions import HelpActions
from monitor.in_pieces import Piece
from monitor.key_table import remapped
from monitor.palette import THEMES
from monitor.palette_search import RunSearch
from monitor.pane_actions import PaneActions
from monitor.picture_due import picture_due
from monitor.reader import Reader
from monitor.replay_actions import ReplayActions
from monitor.replaying import Replaying
from monitor.run_catalogue import ListedRun, discover
from monitor.run_model import RunModel
from monitor.screen_data import footer_labels, header_data, scrub_data, status_of, step_notes
from monitor.settings import Settings
from monitor.shown import Shown, shown_at, shown_now
from monitor.sources.source import Source
from monitor.training_actions import TrainingActions
from monitor.undisturbed import Undisturbed
from monitor.verdict_history import VerdictHistory
from monitor.view_actions import ViewActions
from monitor.view_names import NAMES, ViewName
from monitor.viewing import Viewing
from monitor.views import by_name
from monitor.views.view import View
from monitor.widgets.key_footer import KeyFooter
from monitor.widgets.prompt import Prompt
from monitor.widgets.run_header import RunHeader
from monitor.widgets.scrub_bar import ScrubBar
from monitor.widgets.status_line import StatusLine
from monitor.widgets.view_bar import ViewBar

_INTAKE = 0.005
"""Seconds in a row that taking in records may take."""
_BREATH = 0.005
"""Seconds between two of those, for keys."""
_FIRST_PICTURE = 0.5  # seconds; then the diagnosis starts though nothing was drawn
_AT_ONCE = 500
_NOTHING = (-1, -1)
"""Drawn so far, before anything was."""
_ON_THE_WAY = 0.5
"""Seconds between pictures while a replay is read on to where it was sent."""


class News(Message):
    """A thread has something for the screen."""


class MonitorApp(
    ViewActions,
    ChartActions,
    ReplayActions,
    TrainingActions,
    PaneActions,
    CompareActions,
    HelpActions,
    Hearing,
):
    """The monitor of one run at a time.

    ``engine_factory`` makes the diagnosis of a header; None loads the product's, in a thread.
    ``settings`` are the person's: its theme is a Textual theme's name, None ours, dark; its ``fps``
    bounds how often the screen is redrawn. ``find_runs`` lists what the Runs view offers;
    ``remember`` is told the verdict of a run that is left.
    """

    CSS_PATH = "monitor.tcss"
    TITLE = "defaultpp-monitor"
    ENABLE_COMMAND_PALETTE = True
    AUTO_FOCUS = ""
    """Nothing has the keyboard until a prompt asks for it."""
    COMMANDS: ClassVar = App.COMMANDS | {RunSearch}

    def __init__(
        self,
        source: Source,
        *,
        engine_factory: EngineFactory | None = None,
        settings: Settings | None = None,
        title: str | None = None,
        find_runs: Callable[[], tuple[ListedRun, ...]] = discover,
        remember: Callable[[Diagnosis | None], None] = lambda diagnosis: None,
    ) -> None:
        self.settings = settings or Settings()
        self.keys, complaints = remapped(self.settings.keys)
        if self.settings.ascii:
            self.keys = self.keys.in_ascii()
        # Textual binds the palette's key itself, by priority.
        palette_key = self.keys.of("command_palette").keys.split(",")[0]
        setattr(self, "COMMAND_PALETTE_BINDING", palette_key)  # noqa: B010 (declared for classes)
        self.pace = Pace()
        self.undisturbed = Undisturbed()
        # With NO_COLOR the terminal's own two colours, not shades of grey.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self.HORIZONTAL_BREAKPOINTS = list(WIDTH_CLASSES)
        self.VERTICAL_BREAKPOINTS = list(HEIGHT_CLASSES)
        for key in self.keys.keys:
            self.bind(key.keys, key.action, description=key.help, show=False)
        self.ascii_only = self.settings.ascii
        self.find_runs, self.remember = find_runs, remember
        self.viewing = Viewing(
            smoothing=self.settings.smoothing,
            grid=self.settings.charts,
            by_time=self.settings.axis == "time",
        )
        self.comparison = Comparison(self.wake)
        self._complaints = [*self.settings.complaints, *complaints]
        self.picture = GentlePicture(self.set_timer)
        self._timer: Timer | None = None
        self._intake: Timer | None = None
        self._ticked = self._acted = 0.0
        self._woken = False
        self._views: dict[ViewName, View] = {}
        self._open(source, title or source.title, engine_factory)
        for own in THEMES:
            self.register_theme(own)
        theme = self.settings.theme
        if theme is not None and theme not in self.available_themes:
            self._complaints.append(f"theme = {theme!r} is no theme: the palette lists them")
        self.theme = theme if theme in self.available_themes else THEMES[0].name
        self.stylesheet.set_variables(self.get_css_variables())
        self._styled = False

    def _open(self, source: Source, title: str, factory: EngineFactory | None) -> None:
        """Everything that belongs to one run."""
        self.run_title = title
        self.model = RunModel()
        self.verdicts = VerdictHistory()
        self.past = DiagnosisHistory()
        self.breakpoints = Breakpoints()
        self.shown = Shown()
        self.replaying = Replaying.of(source)
        self.diagnosing = Diagnosing(factory, self.wake)
        self.reader = Reader(source, self.diagnosing.feed, self.wake)
        self.controlling = Controlling(source, self._on_reply)
        self.begin_hearing()
        self._seen: tuple[object, ...] = ()
        self._drawn = _NOTHING
        self._pictured = False
        self._remembered = False

    def get_driver_class(self) -> type[Driver]:
        return frugal(super().get_driver_class())

    def compose(self) -> ComposeResult:
        yield RunHeader(id="header")
        yield ViewBar(id="view-bar")
        with Container(id="views"):
            first = self._views[self.viewing.view] = by_name.loaded(self.viewing.view)()
            yield first
        yield ScrubBar(id="scrub")
        yield StatusLine(id="status")
        yield Prompt(id="prompt")
        yield KeyFooter(id="footer")

    def get_default_screen(self) -> Screen[object]:
        self._base = BaseScreen(self.size)
        return cast("Screen[object]", self._base)

    def refresh_css(self, animate: bool = True) -> None:
        """Not when it starts: Textual asks for it as it tells of the theme, but the styles were
        read for that one, and every pane has them."""
        if self._styled:
            super().refresh_css(animate)
        self._styled = True

    @property
    def view(self) -> View | None:
        return self._views.get(self.viewing.view)

    def on_mount(self) -> None:
        self.screen.set_class(self.ascii_only, "-ascii")
        self.theme_changed_signal.subscribe(self, lambda _: self.draw())
        if self._complaints:
            more = len(self._complaints) - 1
            told = f" (and {more} more: defaultpp-monitor doctor tells all)" if more else ""
            self.message = self._complaints[0] + told
        self.undisturbed.begin()
        self.reader.start()
        self.controlling.start()
        # The engine's imports hold the interpreter for seconds: the first picture goes before.
        self.set_timer(_FIRST_PICTURE, self._start_diagnosing)
        self.set_timer(_FIRST_PICTURE, self._base.begin)

    def _present(self) -> None:
        """The first picture of the run is laid out: show it, and then go on."""
        self._base.begin()
        self.call_after_refresh(self._load, NAMES)

    def _load(self, names: Sequence[ViewName]) -> None:
        """The other views, one at a time, before an engine that loads holds up everything else."""
        if names:
            by_name.loaded(names[0])
            self.set_timer(_BREATH, partial(self._load, names[1:]))
        else:
            self._start_diagnosing()

    def _start_diagnosing(self) -> None:
        if self.is_running:
            self.undisturbed.begin()
            self.diagnosing.start()

    def on_unmount(self) -> None:
        self.undisturbed.end()
        self.picture.drop()
        self._stop_timers()
        self.controlling.stop()
        self.diagnosing.stop()
        self.reader.stop()
        for part in self.comparison.clear():
            part.stop()
        self.remember(self.diagnosis.diagnosis)

    def switch_source(self, source: Source) -> None:
        """Watch another run instead; what was open is closed."""
        self.remember(self.diagnosis.diagnosis)
        old: list[Stoppable] = [self.controlling, self.diagnosing, self.reader]
        old += self.comparison.clear()
        # The engine once loaded serves every run.
        self._open(source, source.title, self.diagnosing.factory)
        self.viewing.new_run()
        self.reader.start()
        self.controlling.start()
        self.diagnosing.start()

        self.close_parts(old)
        self.action_show_view("overview")

    def close_parts(self, parts: Sequence[Stoppable]) -> None:
        def stop() -> None:
            for part in parts:
                part.stop()

        if parts:
            self.run_worker(stop, thread=True, group="closing")

    # News and drawing.

    def wake(self) -> None:
        """There is news; may be called from any thread, however often."""
        if not self._woken:
            self._woken = True
            self.post_message(News())

    @on(News)
    def _news(self) -> None:
        apart = max(1 / self.settings.fps, _ON_THE_WAY if self._seeking else 0.0)
        due = picture_due(self._ticked, apart, self._acted if self.replaying is None else None)
        wait = max(due - time.monotonic(), self.pace.wait)
        if wait <= 0:
            self.tick(gently=True)
        elif self._timer is None:
            self._timer = self.set_timer(wait, self._waited)

    def _waited(self) -> None:
        """A key may have come meanwhile."""
        self._timer = None
        self._news()

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._intake):
            if timer is not None:
                timer.stop()
        self._timer = self._intake = None

    @property
    def _seeking(self) -> bool:
        """A replay is on its way to where it was sent."""
        return self.replaying is not None and self.replaying.position.seeking

    def tick(self, gently: bool = False) -> None:
        """Take in what was read since the last time; draw if anything changed, ``gently``: piece
        by piece, with time for keys in between."""
        self._stop_timers()
        self._woken = False
        self._ticked = time.monotonic()
        self._take_in()
        found = self.diagnosing.take()
        if None in found:
            self.verdicts.clear()
            self.past.clear()
            found = found[len(found) - found[::-1].index(None) :]
        said = [diagnosis for diagnosis in found if diagnosis is not None]
        self.verdicts.add(*said)
        for diagnosis in said:
            self.past.add(diagnosis)
        if self.comparison.drain():
            self.diagnoses += 1
        position = self.replaying.position if self.replaying else None
        self.diagnosing.hold(position is not None and position.seeking)
        self.comparison.take_turns(self.diagnosing.idle)
        state = self.diagnosing.state
        if state is not self.diagnosis:
            self.take_diagnosis(state)
        self.stop_where_wanted()
        self.go_to_wanted_flag()
        contents = (self.model.contents, self.diagnoses)
        now = (self.model.version, position)
        if contents != self._drawn and self.viewing.frozen is None:
            if gently and self.picture.unfinished:
                contents = self._drawn  # the picture before is finished first
                self.wake()
            else:
                self.draw(gently)
        elif contents != self._drawn or now != self._seen:
            # A heartbeat, or data behind a paused view: the large area stays as it is.
            self._draw_edges()
        self._drawn, self._seen = contents, now
        if self.reader.waiting or self.comparison.waiting:
            self.wake()
        elif position is not None and position.at_end and not self._remembered:
            self._remember()

    def _remember(self) -> None:
        """A long trace was read to its end: keep its overview for the next time."""
        keep = self.replaying.remember(self.model) if self.replaying is not None else None
        if keep is not None:
            self._remembered = True
            self.run_worker(keep, thread=True, group="keeping")

    def _take_in(self) -> None:
        """Take in what was read, for a moment only: a key must not wait for a long backlog."""
        until = time.monotonic() + _INTAKE
        while time.monotonic() < until and self.is_running:
            batches = self.reader.drain(_AT_ONCE)
            for batch in batches:
                self.take(batch)
            if not batches:
                break
        # The next breath, without waiting for the next picture.
        if self.is_running and (self.reader.waiting or self._seeking):
            self._intake = self.set_timer(_BREATH, self._go_on_taking_in)

    def _go_on_taking_in(self) -> None:
        was_seeking = self._seeking
        self._take_in()
        if was_seeking and not self._seeking:
            self.tick()  # arrived: the picture of it does not wait

    def draw(self, gently: bool = False, *, fresh: bool = True) -> None:
        """Give every pane on screen its data; each redraws only the lines that changed.

        ``gently``: what takes long is prepared before anything is drawn, so that a key meanwhile
        draws the picture before. Not ``fresh``: of what was read up to that picture. What came
        since is in the next one, which is not far.
        """
        self.picture.drawing.drop()
        if not self.is_running or not self.screen_stack:
            return
        view = self.view if self.view and self.view.is_mounted and self.view.size.width else None
        if fresh:
            self.picture.drop()
            if gently and self._pictured and view is not None:
                self._prepare(view)
                return
            self.model.hold()
        elif self.model.behind and not self.picture.unfinished:
            self._drawn = _NOTHING
            self.wake()
        self._draw_state()
        if view is not None:
            view.draw()
            if self.model.header is not None and not self._pictured:
                self._pictured = True
                self.call_after_refresh(self._present)

    def _prepare(self, view: View) -> None:
        """A picture of all that was read, a piece at a time."""
        snapshot = self.model.snapshot()

        def ahead(piece: Piece) -> None:
            with self.model.ahead(snapshot):
                piece()

        def pieces() -> Sequence[Piece]:
            self.model.hold(snapshot)
            self._draw_state()
            return view.pieces()

        self.picture.begin(
            [partial(ahead, piece) for piece in view.preparations()],
            pieces,
            lambda: view.is_attached and bool(view.children),
        )

    def _draw_state(self) -> None:
        """What is known of the run now, and all but the view."""
        if self.viewing.frozen is None:
            self.shown = shown_now(self.model, self.diagnosis)
        self._draw_edges()

    def _draw_edges(self) -> None:
        """Header, tabs, status line and footer."""
        if not self.is_running or not self.screen_stack:
            return
        base = self.screen_stack[0]
        base.query_one(RunHeader).show(
            header_data(self.model, self.viewing, self.run_title, self.replaying)
        )
        base.query_one(ViewBar).show(self.viewing.view, step_notes(self.viewing, self.breakpoints))
        labels = footer_labels(
            self.viewing, self.replaying, self.holding, self.model.over, bool(self.comparison)
        )
        if self.view is not None:
            labels |= self.view.labels
        base.query_one(KeyFooter).show(self.keys.here(self.is_replay, self.viewing.view), labels)
        flag = self.known_flag
        scrub = scrub_data(self.model, self.viewing, self.replaying, flag)
        base.query_one(ScrubBar).show(scrub)
        base.query_one(StatusLine).show(*status_of(self.model, self.viewing, self.message))

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def say(self, text: str) -> None:
        self.message = text
        self.model.note(text)
        self.draw()

    def _on_reply(self, text: str) -> None:
        """Called in the control thread."""
        self.from_thread(self.say, text)

    def acted(self, *, fresh: bool = False) -> None:
        self.message = ""
        self._acted = time.monotonic()
        with self.undisturbed.first():
            self.draw(fresh=fresh)

    # Actions; each is one row of the key table.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that do not belong to this kind of source or this view do nothing."""
        return self.keys.works(action, parameters, self.is_replay, self.viewing.view)

    def action_show_view(self, name: ViewName) -> None:
        self.viewing.view = name
        self.message = ""
        self.picture.drop()
        view = self._views.get(name)
        for other in self._views.values():
            other.display = other is view
        if view is None:
            # Made when first wanted, so that the first screen does not wait for all of them.
            view = self._views[name] = by_name.loaded(name)()
            self.screen_stack[0].query_one("#views").mount(view)
        else:
            self.call_after_refresh(self.view_shown, view)

    def view_shown(self, view: View) -> None:
        """A view was laid out after it was switched to, or for the first time."""
        if self.is_running and view.is_mounted and view is self.view:
            view.entered()
            self.draw()
            self.call_after_refresh(self._base.begin)

    def action_toggle_view(self) -> None:
        paused = self.viewing.frozen is not None
        self.viewing.frozen = None if paused else (self.model.step or 0)
        self.acted(fresh=True)

    def look_at(self, step: int) -> None:
        newest = self.model.step
        step = step if newest is None else min(step, newest)
        self.viewing.frozen = step
        cursor = self.viewing.steps.cursor
        if cursor is not None and cursor > step:
            self.viewing.steps.cursor = step
        self.shown = shown_at(self.model, self.diagnosis, self.past.at(step), step)
        self.acted(fresh=True)

    def ask(
        self,
        label: str,
        done: Callable[[str | None], None],
        value: str = "",
        changed: Callable[[str], None] | None = None,
    ) -> None:
        self.screen_stack[0].query_one(Prompt).ask(label, value, done, changed)

    def action_suspend_process(self) -> None:
        # A timer that fires while the app is suspended can deadlock its writer (textual 8.2.8).
        self._stop_timers()
        super().action_suspend_process()
        self._woken = False
        self.wake()
