"""One measured figure of the monitor's speed, beside what was asked for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """A line of the table. ``limit`` None: nothing was asked for; ``value`` NaN: ``note`` says why
    there is none."""

    what: str
    value: float
    unit: str = ""
    limit: float | None = None
    wanted: Literal["at most", "at least"] = "at most"
    spread: tuple[float, float] | None = None
    """Lowest and highest of the repetitions."""
    note: str = ""

    @property
    def met(self) -> str:
        """Whether it is as asked; empty where nothing was."""
        if self.limit is None or self.value != self.value:
            return ""
        kept = self.value <= self.limit if self.wanted == "at most" else self.value >= self.limit
        return "met" if kept else "missed"

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """What, measured, spread, asked for, met or missed."""
        measured = f"{self.value:.3g} {self.unit}" if self.value == self.value else self.note
        spread = "" if self.spread is None else f"{self.spread[0]:.3g} – {self.spread[1]:.3g}"
        sign = "≤" if self.wanted == "at most" else "≥"
        asked = "" if self.limit is None else f"{sign} {self.limit:g} {self.unit}"
        return self.what, measured.strip(), spread, asked.strip(), self.met


def median(
    what: str,
    found: Sequence[float],
    unit: str,
    limit: float | None = None,
    wanted: Literal["at most", "at least"] = "at most",
) -> Figure:
    """The median of repetitions with their spread."""
    return Figure(
        what, statistics.median(found), unit, limit, wanted, spread=(min(found), max(found))
    )
