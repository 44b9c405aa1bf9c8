"""What is read of the run, and what the diagnosis finds, taken in by the application."""

from __future__ import annotations

from monitor.app_base import AppBase
from monitor.diagnosing import DiagnosisState
from monitor.model_state import taken
from monitor.sources.source import Batch


class Hearing(AppBase):
    """Keeps the model and the diagnosis that are shown, and says what is news of them."""

    def begin_hearing(self) -> None:
        """Of another run."""
        self.diagnosis = DiagnosisState()
        self.diagnoses = 0
        """Counts what was heard of the diagnosis."""
        self.message = ""
        self._heard = ""
        """What the source of a replay said last."""
        self._noted_flag: int | None = None
        self.known_flag = None
        """First flagged step of this run, kept when a replay goes back before it."""
        self.wants_flag = False
        """A replay is read on to find it."""

    def take(self, batch: Batch) -> None:
        """What one read brought."""
        link = self.model.link
        run = self.model.header
        self.model = taken(self.model, batch)
        if batch.link == "replay" and batch.text not in ("", self._heard):
            self._hear(batch.text)
        if batch.known:
            return
        begun_again = any(header.revision == 0 for header in batch.headers)
        if begun_again:
            self._noted_flag = None
            self.viewing.frozen = None
        if begun_again or batch.overview is not None:
            now = self.model.header
            if run is not None and now is not None and run.run != now.run:
                self.known_flag = None
                self.viewing.new_run()
        if batch.link != link and batch.link in ("lost", "ended"):
            self.model.note(batch.text or f"the run is {batch.link}", kind=batch.link)

    def _hear(self, text: str) -> None:
        """Something about the trace itself; that it was read to its proper end is no news."""
        self._heard = text
        if self.model.end is None:
            self.message = text
            self.model.note(text)

    def take_diagnosis(self, state: DiagnosisState) -> None:
        """Where the diagnosis stands by now; the step of a first flag goes into the event log."""
        if self.diagnosis.phase == "loading" != state.phase:
            self.undisturbed.begin()  # the engine's libraries are there
        self.diagnosis = state
        self.diagnoses += 1
        found = state.diagnosis
        self.viewing.promote(found)
        if found is None or found.verdict != "faulty" or found.first_flagged_step is None:
            return
        self.known_flag = found.first_flagged_step
        if self._noted_flag != found.first_flagged_step:
            self._noted_flag = found.first_flagged_step
            name = f"{found.category}/{found.root_cause}" if found.root_cause else "cause unknown"
            self.model.note(f"faulty: {name}", "flagged", found.first_flagged_step)
