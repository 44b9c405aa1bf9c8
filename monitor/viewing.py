"""What the person chose to look at, and which data that makes. Pure: no screen, no thread."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from diagnoser.diagnosis import Diagnosis
from monitor.charts.heatmap import Heat, heat
from monitor.charts.line_chart import ChartData
from monitor.metric_groups import group_key
from monitor.run_model import RunModel, StepMark

View = Literal["overview", "charts", "heatmap", "events"]
VIEWS: tuple[View, ...] = ("overview", "charts", "heatmap", "events")

_FIRST = ("training/loss",)
_NEXT = ("training/grad_norm", "attention/entropy", "residual_ffn/branch_ratio", "output/entropy")


@dataclass
class Viewing:
    """Choices of the person; nothing here changes by itself."""

    view: View = "overview"
    pattern: str = ""
    selected: str | None = None
    """Key of the chosen chart once the person has moved, else the first chart."""
    promoted: tuple[str, ...] = ()
    """Charts of the evidence, put first until the person moves."""
    log_toggled: set[str] = field(default_factory=set)
    heatmap: str | None = None
    frozen: int | None = None
    """While the view is paused: the step it was paused at."""

    def promote(self, diagnosis: Diagnosis | None) -> None:
        """Put the charts of a faulty run's evidence first, unless the person chose a chart."""
        if self.selected is not None:
            return
        keys = evidence_keys(diagnosis) if diagnosis and diagnosis.verdict == "faulty" else ()
        self.promoted = keys or self.promoted

    def keys(self, model: RunModel) -> tuple[str, ...]:
        """Charts that pass the filter, in order: first what matters, last what is not measured."""
        groups = model.groups
        first = dict.fromkeys((*_FIRST, *self.promoted, *_NEXT))
        rest = sorted(groups, key=lambda key: not model.measured(key))
        ordered = [key for key in first if key in groups and model.measured(key)]
        ordered += [key for key in rest if key not in ordered]
        if not self.pattern:
            return tuple(ordered)
        try:
            matcher = re.compile(self.pattern, re.IGNORECASE)
        except re.error:
            return ()
        return tuple(key for key in ordered if matcher.search(key))

    def chosen(self, keys: tuple[str, ...]) -> int:
        """Index of the chosen chart among ``keys``; 0 where it is not among them."""
        return keys.index(self.selected) if self.selected in keys else 0

    def move(self, keys: tuple[str, ...], by: int) -> None:
        """Choose another chart, round the ends."""
        if keys:
            self.selected = keys[(self.chosen(keys) + by) % len(keys)]

    def page(self, keys: tuple[str, ...], places: int) -> tuple[int, tuple[str, ...]]:
        """Index of the first chart on the page that holds the chosen one, and the page."""
        start = self.chosen(keys) // max(places, 1) * places
        return start, keys[start : start + places]

    def is_log(self, model: RunModel, key: str) -> bool:
        """Residuals are logarithmic unless the person says otherwise, others the other way."""
        group = model.groups.get(key)
        residual = group is not None and group.metric is not None
        residual = residual and group.metric.form == "residual"  # type: ignore[union-attr]
        return residual != (key in self.log_toggled)

    def heatmap_key(self, model: RunModel) -> str | None:
        """The chosen metric, else the evidence's first with layers, else the first measured."""
        groups = model.groups
        usual = ("attention/entropy", "residual_ffn/branch_ratio")
        for key in (self.heatmap, *self.promoted, *usual):
            if key and key in groups and groups[key].layered:
                return key
        layered = [key for key, group in groups.items() if group.layered]
        return next((key for key in layered if model.measured(key)), next(iter(layered), None))


def pattern_error(pattern: str) -> str:
    """Why a regular expression cannot be used, in one sentence; empty if it can."""
    try:
        re.compile(pattern)
    except re.error as error:
        return f"not a regular expression: {error}"
    return ""


def evidence_keys(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Charts that the evidence speaks of, each once."""
    return tuple(dict.fromkeys(group_key(e.site, e.metric) for e in diagnosis.evidence))


def marks_of(
    model: RunModel, diagnosis: Diagnosis | None, upto: int | None
) -> tuple[StepMark, ...]:
    """The run's events and the step that was flagged first; later ones are drawn on top."""
    marks = sorted(model.marks(upto), key=lambda mark: mark.kind == "fault")
    if diagnosis is not None and diagnosis.verdict == "faulty":
        flagged = diagnosis.first_flagged_step
        if flagged is not None and (upto is None or flagged <= upto):
            marks.insert(0, StepMark(flagged, "flagged"))
    return tuple(marks)


def chart_data(
    model: RunModel, viewing: Viewing, diagnosis: Diagnosis | None, key: str, selected: bool
) -> ChartData:
    """Everything the chart of ``key`` shows now."""
    group = model.groups[key]
    metric = group.metric
    upto = viewing.frozen
    first = model.first_step or 0
    last = upto if upto is not None else model.step
    absent = "" if model.measured(key) else model.absence(key)
    return ChartData(
        title=key,
        curves=model.curves(key, upto),
        span=(first, max(last or 0, first + 1)),
        unit=metric.unit if metric else "",
        log=viewing.is_log(model, key),
        marks=marks_of(model, diagnosis, upto),
        absent=absent,
        contract=metric.contract if metric else False,
        selected=selected,
        flagged=key in viewing.promoted,
    )


def heat_data(
    model: RunModel, viewing: Viewing, diagnosis: Diagnosis | None, key: str, columns: int
) -> Heat:
    """The heatmap of ``key`` in a number of columns."""
    group = model.groups[key]
    form = group.metric.form if group.metric else "statistic"
    marks = marks_of(model, diagnosis, viewing.frozen)
    return heat(model.curves(key, viewing.frozen), form, columns, marks)
