"""The evidence as a list to choose from; the chosen sentence in full, all of them with room."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from diagnoser.diagnosis import Evidence
from monitor import glyphs
from monitor.charts.line import Line
from monitor.formatting import clipped
from monitor.metric_groups import group_key
from monitor.widgets.list_pane import ListPane
from monitor.widgets.list_window import first_shown
from monitor.widgets.pane_title import set_title


class EvidencePane(ListPane):
    """Observations that speak for the diagnosis."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._evidence: tuple[Evidence, ...] = ()
        self._chosen = 0

    def show(self, evidence: Sequence[Evidence], chosen: int) -> None:
        """Draw a list."""
        self._evidence, self._chosen = tuple(evidence), chosen
        count = len(self._evidence)
        set_title(self, f"Evidence · {count}" if count else "Evidence")
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        self._owners = ()
        if not self._evidence:
            return ((("nothing speaks for a fault", "muted"),),)
        lines: list[Line] = []
        owners: list[int] = []
        chosen_line = 0
        whole = [textwrap.wrap(found.text, max(10, width - 2)) or [""] for found in self._evidence]
        roomy = sum(map(len, whole)) + 1 <= height
        for index, found in enumerate(self._evidence):
            chosen = index == self._chosen
            wrapped = whole[index]
            if chosen:
                chosen_line = len(lines) + len(wrapped)
                where = f"{glyphs.RIGHT} {group_key(found.site, found.metric)}"
                wrapped.append(f"{where}, expected {found.expected}, since {found.since_step}")
            elif len(wrapped) > 1 and not roomy:
                # The others in one line each: the list stays in sight.
                wrapped = [clipped(found.text, width - 2)]
            for row, text in enumerate(wrapped):
                sign = (glyphs.SELECTED if chosen else glyphs.BULLET) if row == 0 else " "
                last = chosen and row == len(wrapped) - 1
                role = "muted" if last else "accent bold" if chosen else "fg"
                lines.append(
                    ((f"{sign} ", "accent bold" if chosen else "warn"),
                     (clipped(text, width - 2), role))
                )  # fmt: skip
                owners.append(index)
        self._owners = owners
        self._first = first_shown(min(chosen_line, len(lines) - 1), len(lines), height, self._first)
        return tuple(lines[self._first : self._first + height])
