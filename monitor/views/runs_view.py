"""The runs: what else could be watched, live or recorded."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult

from monitor.run_catalogue import ListedRun
from monitor.sources.source import Source, SourceError
from monitor.views.view import View
from monitor.widgets.runs_pane import RunsPane


class RunsView(View):
    """Live runs of this user and the newest traces; Enter watches another one."""

    view_name = "runs"

    def __init__(self) -> None:
        super().__init__()
        self._runs: tuple[ListedRun, ...] = ()
        self._chosen = 0
        self._note = "looking for runs…"

    def compose(self) -> ComposeResult:
        yield RunsPane(id="run-list").add_class("pane")

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
        self.query_one(RunsPane).show(self._runs, self._chosen, current, self._note)

    def choose(self, by: int) -> None:
        if self._runs:
            self._chosen = (self._chosen + by) % len(self._runs)
            self.monitor.acted()

    def enter(self) -> None:
        if self._runs:
            listed = self._runs[self._chosen]
            self.run_worker(lambda: self._open(listed), thread=True, group="opening")

    def _open(self, listed: ListedRun) -> None:
        from monitor.run_catalogue import open_listed

        try:
            source: Source = open_listed(listed)
        except Exception as error:  # whatever is wrong with that run, this one stays on screen
            self.monitor.from_thread(self.monitor.say, f"{listed.name}: {error}")
            return
        self.monitor.from_thread(self.monitor.switch_source, source)

    @on(RunsPane.Clicked)
    def _clicked(self, message: RunsPane.Clicked) -> None:
        self._chosen = message.index
        self.monitor.acted()
