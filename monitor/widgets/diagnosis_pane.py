"""The pane of the diagnosis."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.charts.line import Line
from monitor.diagnosing import DiagnosisState
from monitor.widgets.diagnosis_lines import lines_for
from monitor.widgets.line_pane import LinePane


class DiagnosisPane(LinePane):
    """Verdict, probability, root cause, evidence, what to try."""

    BORDER_TITLE = "Diagnosis"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._state = DiagnosisState()

    def show(self, state: DiagnosisState) -> None:
        """Draw a new state."""
        self._state = state
        self.redraw_of(state)

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        return lines_for(self._state, width, height)
