"""From the run and the person's choices to what a chart or heatmap draws. Pure."""

from __future__ import annotations

from dataclasses import replace

from diagnoser.diagnosis import Diagnosis
from monitor.charts.heatmap import Heat, heat
from monitor.charts.line_chart import ChartData
from monitor.charts.raster import cut
from monitor.charts.smoothing import smoothed
from monitor.charts.time_axis import over_time
from monitor.comparison import Comparison, differences, overlaid
from monitor.healthy_range import healthy_range
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
    model: RunModel,
    viewing: Viewing,
    diagnosis: Diagnosis | None,
    key: str,
    selected: bool,
    comparison: Comparison | None = None,
) -> ChartData:
    """Everything the chart of ``key`` shows now."""
    group = model.groups[key]
    metric = group.metric
    upto = viewing.frozen
    curves = model.curves(key, upto, viewing.rank)
    weight = viewing.smoothing
    data = ChartData(
        title=key,
        curves=tuple(smoothed(curve, weight) for curve in curves) if weight else curves,
        raw=curves if weight else (),
        span=viewing.span(model),
        unit=metric.unit if metric else "",
        log=viewing.is_log(model, key),
        marks=marks_of(model, diagnosis, upto),
        absent="" if model.measured(key) else model.absence(key),
        contract=metric.contract if metric else False,
        selected=selected,
        flagged=key in viewing.promoted,
        cursor=viewing.steps.cursor,
        note=f"EMA {weight:g}" if weight else "",
        healthy=healthy_range(metric),
    )
    if comparison:
        data = _compared(data, model, viewing, key, comparison)
    return over_time(data, model.clock) if viewing.by_time else data


def _compared(
    data: ChartData, model: RunModel, viewing: Viewing, key: str, comparison: Comparison
) -> ChartData:
    """With the other runs' curves, or instead of them the difference from the baseline."""
    own = model.curves(key, viewing.frozen, viewing.rank)
    weight = viewing.smoothing
    base = comparison.base
    if viewing.difference and base is not None:
        found = differences(own, base.model.curves(key))
        return replace(
            data,
            curves=tuple(smoothed(curve, weight) for curve in found) if weight else found,
            raw=found if weight else (),
            log=False,
            healthy=None,
            absent="" if found else f"the baseline {base.letter} has no such chart",
            note=f"A − {base.letter}",
        )
    others = [(other.letter, other.model.curves(key)) for other in comparison.runs]
    curves, raw = overlaid(own, others, weight)
    # A run that trained longer is seen to its end, unless the person zoomed or looks back.
    longest = max((other.model.step or 0 for other in comparison.runs), default=0)
    first, last = data.span
    if viewing.steps.zoomed is None and viewing.frozen is None:
        last = max(last, longest)
    return replace(data, curves=curves, raw=raw, span=(first, last))


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
    curves = [cut(curve, span) for curve in model.curves(key, viewing.frozen, viewing.rank)]
    whole = viewing.settled(model)
    return heat(curves, form, columns, marks, cursor=viewing.steps.cursor, tall=tall, whole=whole)
