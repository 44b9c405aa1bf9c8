"""The runs: what else could be watched, live or recorded, and runs and ranks side by side."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult

from monitor.charts.chart_pane import ChartPane
from monitor.comparison import WATCHED
from monitor.help_topics import HelpTopic, run_topic
from monitor.run_catalogue import ListedRun
from monitor.sources.source import SourceError
from monitor.views import chart_page
from monitor.views.view import View
from monitor.widgets.comparison_pane import ComparisonPane, rows_of
from monitor.widgets.list_window import stepped
from monitor.widgets.runs_pane import RunsPane, lines_wanted

_CHART = 14
"""Lines of the chart at least, where it is shown."""


class RunsView(View):
    """Live runs of this user and the newest traces; Enter watches another one, c compares it."""

    view_name = "runs"
    main_pane = "run-list"

    def __init__(self) -> None:
        super().__init__()
        self._runs: tuple[ListedRun, ...] = ()
        self._chosen = 0
        self._note = "looking for runs…"

    def compose(self) -> ComposeResult:
        yield RunsPane(id="run-list").add_class("pane")
        yield ComparisonPane(id="comparison").add_class("pane")
        yield ChartPane(id="runs-chart").add_class("companion")

    def entered(self) -> None:
        self.look()

    def look(self) -> None:
        """Look for runs, in a thread: the list may lie on a slow file system."""
        self.run_worker(self._look, thread=True, exclusive=True, group="looking")

    def _look(self) -> None:
        note = ""
        found: tuple[ListedRun, ...] = ()
        try:
            found = self.monitor.find_runs()
        except SourceError as error:
            note = str(error)
        self.monitor.from_thread(self._found, found, note)

    def _found(self, runs: tuple[ListedRun, ...], note: str) -> None:
        self._runs, self._note = runs, note
        self._chosen = min(self._chosen, max(0, len(runs) - 1))
        self.redraw_if_shown()

    def draw(self) -> None:
        header = self.monitor.model.header
        current = header.run if header else ""
        app = self.monitor
        letters = {other.run: other.letter for other in app.comparison.runs} | {current: WATCHED}
        name = header.name or header.run if header else app.run_title
        rows = rows_of(app.model, name, app.comparison, app.shown.diagnosis)
        told = {row.sign: row.verdict for row in rows}
        verdicts = {run: told[letter] for run, letter in letters.items()}
        shown = letters if app.comparison.runs else {}
        self.query_one(RunsPane).show(
            self._runs, self._chosen, current, self._note, shown, verdicts
        )
        self.query_one(ComparisonPane).show(rows)
        chart = self.query_one(ChartPane)
        chart.set_class(not self._side_by_side, "-needless")
        if self._side_by_side and chart.display:
            # What the list leaves free.
            taken = lines_wanted(len(self._runs)) + len(rows) + 2
            self.size_pane(chart, height=max(_CHART, self.size.height - taken))
        keys = app.viewing.keys(app.model)
        key = keys[app.viewing.chosen(keys)] if keys else None
        chart_page.companion(chart, app, key)

    @property
    def _side_by_side(self) -> bool:
        """There are several runs or ranks, and so a chart of them."""
        return bool(self.monitor.comparison) or len(self.monitor.model.ranks) > 1

    @property
    def labels(self) -> dict[str, str]:
        charted = ("cursor(-1)", "zoom(0.5)", "next_compared(-1)")
        return {} if self._side_by_side else dict.fromkeys(charted, "")

    def help_topics(self) -> list[HelpTopic]:
        """The chosen run, then the metric of the chart beside it."""
        listed = self.chosen_run
        charted = super().help_topics() if self._side_by_side else []
        return [*([run_topic(listed)] if listed is not None else []), *charted]

    @property
    def chosen_run(self) -> ListedRun | None:
        """The run that the keys mean."""
        return self._runs[self._chosen] if self._runs else None

    def choose(self, by: int) -> None:
        if self._runs:
            self._chosen = stepped(self._chosen, by, len(self._runs))
            self.monitor.acted()

    def enter(self) -> None:
        listed, header = self.chosen_run, self.monitor.model.header
        if listed is None:
            return
        live = not self.monitor.is_replay and not self.monitor.model.over
        if live and header is not None and header.run == listed.run:
            self.monitor.say("this run is on screen already")
        else:
            self.monitor.watch_run(listed)

    @on(RunsPane.Clicked)
    def _clicked(self, message: RunsPane.Clicked) -> None:
        self._chosen = message.index
        self.monitor.acted()
        if message.twice:
            self.enter()
