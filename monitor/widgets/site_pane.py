"""One component of the model: where it is in the code, and what it measures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from monitor import glyphs
from monitor.charts.line import Line, Piece, fitted
from monitor.formatting import clipped, left_clipped, number, percent, spoken
from monitor.widgets.list_pane import ListPane
from monitor.widgets.list_window import first_shown
from monitor.widgets.pane_title import set_title
from probe.schema import Metric, Site

_NAME_WIDTH, _VALUE_WIDTH, _UNIT_WIDTH = 18, 9, 8
_NARROW = 50
"""Below this width the units are left out: what would be healthy matters more."""


@dataclass(frozen=True)
class Measure:
    """One metric of the site with its newest value; NaN where it was not measured."""

    name: str
    metric: Metric | None
    value: float
    absent: str = ""


@dataclass(frozen=True)
class SiteData:
    """All the pane says. ``chosen`` None: the site is looked at, not entered."""

    site: Site
    measures: tuple[Measure, ...]
    suspicion: float | None = None
    origin: bool = False
    step: int | None = None
    chosen: int | None = None


def head_lines(data: SiteData, width: int) -> list[Line]:
    """Suspicion, class and modules of the site."""
    site = data.site
    lines: list[Line] = []
    if data.suspicion is not None:
        word = "likely origin of the fault" if data.origin else "suspicion"
        role = "bad bold" if data.suspicion >= 0.6 else "warn" if data.suspicion >= 0.3 else "fg"
        sign = f"{glyphs.ORIGIN} " if data.origin else ""
        lines.append(((f"{sign}{word} ", role), (percent(data.suspicion), role)))
    # Of an installed package the path from its own name on.
    code = site.where.rpartition("site-packages/")[2]
    for label, values in (("module", site.modules), ("code", (code,) if code else ())):
        for index, value in enumerate(values):
            head = f"{label:<7}" if index == 0 else " " * 7
            lines.append(((head, "muted"), (left_clipped(value, width - 7), "fg")))
    if not site.modules and not site.where:
        text = "computed from the whole run, not by a module"
        lines.append(((text if len(text) <= width else "computed from the whole run", "muted"),))
    return lines


def heading(count: int, step: int | None, width: int) -> Line:
    """What stands in the columns of the metrics."""
    name = f" {count} metric{'s' if count > 1 else ''}"
    value = "newest" if step is None else f"at {step}"
    unit = f" {'unit':<{_UNIT_WIDTH}}" if width >= _NARROW else ""
    text = f"{name:<{_NAME_WIDTH + 1}}{value:>{_VALUE_WIDTH}}  {unit} healthy"
    return ((clipped(text, width), "muted"),)


def _measure_line(measure: Measure, width: int, chosen: bool) -> Line:
    metric = measure.metric
    known = not math.isnan(measure.value)
    value = number(measure.value) if known else "–"
    over = (
        metric is not None
        and metric.contract
        and known
        and not abs(measure.value) <= metric.tolerance
    )
    name_role = "accent bold" if chosen else "fg" if known else "muted"
    value_role = "bad bold" if over or math.isinf(measure.value) else "fg" if known else "muted"
    sign = f" {glyphs.FAULTY}" if over else "  "
    unit = clipped(metric.unit, _UNIT_WIDTH) if metric else ""
    expected = ""
    if metric is not None:
        expected = measure.absent or metric.healthy
    pieces: list[Piece] = [
        (glyphs.SELECTED if chosen else " ", "accent bold"),
        (f"{clipped(measure.name, _NAME_WIDTH):<{_NAME_WIDTH}}", name_role),
        (f"{value:>{_VALUE_WIDTH}}", value_role),
        (sign, "bad bold"),
        (f" {unit:<{_UNIT_WIDTH}} " if width >= _NARROW else " ", "muted"),
    ]
    room = width - sum(len(text) for text, _ in pieces)
    pieces.append((clipped(expected, max(0, room)), "muted"))
    return fitted(pieces, width)


def _wrapped(text: str, width: int, room: int) -> list[Line]:
    """A sentence in at most ``room`` lines, but at least one; what is left out has a sign."""
    parts = textwrap.wrap(text, max(10, width)) or [""]
    shown = parts[: max(1, room)]
    if len(shown) < len(parts):
        shown[-1] = clipped(" ".join(parts[len(shown) - 1 :]), width)
    return [((part, "fg"),) for part in shown]


class SitePane(ListPane):
    """The metrics of a component, one a line, the newest value of each."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._data: SiteData | None = None
        self._top = 0
        """First metric in sight; the lines before the metrics always are."""

    def show(self, data: SiteData | None) -> None:
        """Draw a site, or a hint where none is chosen."""
        if data is None or self._data is None or data.site.name != self._data.site.name:
            self._top = 0
        self._data = data
        set_title(self, spoken(data.site.name) if data else "Component")
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        self._owners = ()
        data = self._data
        if data is None:
            return ((("choose a component with the arrow keys", "muted"),),)
        lines = [*head_lines(data, width), ()]
        room = height - len(lines)
        count = len(data.measures)
        if count == 0:
            return (*lines, (("nothing is measured here", "muted"),))
        lines.append(heading(count, data.step, width))
        chosen = -1 if data.chosen is None else data.chosen
        told = data.measures[chosen].metric if chosen >= 0 else None
        body = max(1, room - 1 - (2 if told else 0))
        self._top = first_shown(max(chosen, 0), count, body, self._top)
        shown = range(self._top, min(count, self._top + body))
        self._owners = [*[-1] * len(lines), *shown]
        for index in shown:
            lines.append(_measure_line(data.measures[index], width, index == chosen))
        if told is not None:
            text = data.measures[chosen].absent or told.meaning
            lines += [(), *_wrapped(text, width, height - len(lines) - 1)]
        return tuple(lines)
