"""The actions of the keys that compare runs and ranks."""

from __future__ import annotations

from monitor.app_base import AppBase
from monitor.comparison import LETTERS
from monitor.run_catalogue import ListedRun
from monitor.sources.source import Source


class CompareActions(AppBase):
    """Part of the application."""

    def action_compare_run(self) -> None:
        listed = self._listed()
        if listed is None:
            return
        if self.comparison.letter_of(listed.run):
            self.close_parts(self.comparison.remove(listed.run))
            self.acted()
        elif self.comparison.full:
            self.say(f"{len(LETTERS)} runs are compared already: take one away first")
        else:
            self._open_to_compare(listed)

    def action_set_baseline(self) -> None:
        listed = self._listed()
        if listed is None:
            return
        self.comparison.baseline = listed.run
        if not self.comparison.letter_of(listed.run):
            self._open_to_compare(listed)
        self.acted()

    def _listed(self) -> ListedRun | None:
        """The run chosen in the list, where it is another than the one watched."""
        listed = self.view.chosen_run if self.view is not None else None
        if listed is None:
            return None
        header = self.model.header
        if header is not None and header.run == listed.run:
            self.say("this run is watched: choose another one to compare it with")
            return None
        return listed

    def _open_to_compare(self, listed: ListedRun) -> None:
        self.run_worker(lambda: self._opened(listed), thread=True, group="opening")

    def _opened(self, listed: ListedRun) -> None:
        """In a thread: what is opened may lie on a slow file system, or not answer."""
        from monitor.run_catalogue import open_listed

        try:
            source = open_listed(listed)
        except Exception as error:  # whatever is wrong with that run, the others stay
            self.from_thread(self.say, f"{listed.name}: {error}")
            return
        self.from_thread(self._compare, listed, source)

    def _compare(self, listed: ListedRun, source: Source) -> None:
        if self.comparison.letter_of(listed.run) or self.comparison.full:
            source.close()
            return
        self.comparison.add(listed.run, listed.name, source, self.diagnosing.factory)
        self.acted()

    def watch_run(self, listed: ListedRun) -> None:
        """Watch a run of the list instead of this one; opened in a thread."""
        self.run_worker(lambda: self._listed_to_watch(listed), thread=True, group="opening")

    def _listed_to_watch(self, listed: ListedRun) -> None:
        from monitor.run_catalogue import open_listed

        try:
            source = open_listed(listed)
        except Exception as error:  # whatever is wrong with that run, this one stays on screen
            self.from_thread(self.say, f"{listed.name}: {error}")
            return
        self.from_thread(self.switch_source, source)

    def action_open_address(self) -> None:
        def done(value: str | None) -> None:
            text = (value or "").strip()
            if text:
                self.message = f"opening {text}…"
                self.draw()
                self.run_worker(lambda: self._opened_to_watch(text), thread=True, group="opening")

        self.ask("address, or path of a trace", done)

    def _opened_to_watch(self, text: str) -> None:
        """In a thread, as :meth:`_opened`."""
        from monitor.run_catalogue import open_named

        try:
            source = open_named(text)
        except Exception as error:  # the run on screen stays, whatever is wrong with another
            self.from_thread(self.say, " ".join(str(error).split()))
            return
        self.from_thread(self.switch_source, source)

    def action_toggle_difference(self) -> None:
        if not self.comparison:
            self.say("no run is compared with this one: choose one in Runs (c)")
            return
        letters = self.comparison.apart
        # After the last of them the runs' own curves again.
        at = letters.find(self.viewing.difference) + 1 if self.viewing.difference else 0
        self.viewing.difference = letters[at : at + 1]
        base = self.comparison.base
        if self.viewing.difference and base is not None:
            self.message = f"the difference {self.viewing.difference} − {base.letter}"
        else:
            self.message = "the runs as they are"
        self.draw()

    def action_next_compared(self, by: int) -> None:
        """Another chart of the runs compared; in the list of runs the arrow keys choose a run."""
        self.viewing.move(self.viewing.keys(self.model), by)
        self.acted()

    def action_next_rank(self) -> None:
        ranks = self.model.ranks
        if len(ranks) < 2:
            self.say("this run has one rank")
            return
        rank = self.viewing.next_rank(ranks)
        self.message = "all ranks together" if rank is None else f"rank {rank} alone"
        self.draw()
