"""From the run and the person's choices to what a chart or heatmap draws. Pure."""

from __future__ import annotations

from diagnoser.diagnosis import Diagnosis
from monitor.charts.heatmap import Heat, heat
from monitor.charts.line_chart import ChartData
from monitor.charts.raster import cut
from monitor.charts.smoothing import smoothed
from monitor.run_model import RunModel, StepMark
from monitor.viewing import Viewing


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
    absent = "" if model.measured(key) else model.absence(key)
    curves = model.curves(key, upto)
    weight = viewing.smoothing
    return ChartData(
        title=key,
        curves=tuple(smoothed(curve, weight) for curve in curves) if weight else curves,
        raw=curves if weight else (),
        span=viewing.span(model),
        unit=metric.unit if metric else "",
        log=viewing.is_log(model, key),
        marks=marks_of(model, diagnosis, upto),
        absent=absent,
        contract=metric.contract if metric else False,
        selected=selected,
        flagged=key in viewing.promoted,
        cursor=viewing.steps.cursor,
        note=f"EMA {weight:g}" if weight else "",
    )


def heat_data(
    model: RunModel,
    viewing: Viewing,
    diagnosis: Diagnosis | None,
    key: str,
    columns: int,
    tall: int = 3,
) -> Heat:
    """The heatmap of ``key`` in a number of columns."""
    group = model.groups[key]
    form = group.metric.form if group.metric else "statistic"
    marks = marks_of(model, diagnosis, viewing.frozen)
    span = viewing.span(model)
    curves = [cut(curve, span) for curve in model.curves(key, viewing.frozen)]
    return heat(curves, form, columns, marks, cursor=viewing.steps.cursor, tall=tall)
