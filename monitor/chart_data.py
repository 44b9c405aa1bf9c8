"""From the run and the person's choices to what a chart or heatmap draws. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from diagnoser.diagnosis import Diagnosis
from monitor.charts.heatmap import Heat, heat
from monitor.charts.line_chart import ChartData
from monitor.charts.raster import cut
from monitor.charts.smoothing import smoothed
from monitor.charts.time_axis import over_time
from monitor.comparison import WATCHED, Comparison, differences, overlaid
from monitor.envelope import Curve
from monitor.healthy_range import healthy_range
from monitor.kept import Kept
from monitor.run_model import RunModel, StepMark
from monitor.step_window import Span
from monitor.viewing import Viewing
from probe.schema import Form

_heats: Kept[Heat] = Kept(4)


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
    comparison: Comparison,
) -> ChartData:
    """Everything the chart of ``key`` shows now."""
    group = model.groups[key]
    metric = group.metric
    upto = viewing.frozen
    curves = model.curves(key, upto, viewing.rank)
    weight = viewing.smoothing
    data = ChartData(
        title=key,
        curves=smoothed(curves, weight),
        raw=curves if weight else (),
        span=viewing.steps.span(whole_span(model, viewing, comparison)),
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
    """With the other runs' curves, or instead of them one's difference from the baseline."""
    weight = viewing.smoothing
    name, found = contrast(model, viewing, key, comparison)
    if name:
        return replace(
            data,
            curves=smoothed(found, weight),
            raw=found if weight else (),
            log=False,
            healthy=None,
            absent="" if found else f"{name}: they have no such chart in common",
            note=name,
        )
    own = model.curves(key, viewing.frozen, viewing.rank)
    others = [(other.letter, other.model.curves(key)) for other in comparison.runs]
    curves, raw = overlaid(own, others, weight)
    return replace(data, curves=curves, raw=raw)


def contrast(
    model: RunModel, viewing: Viewing, key: str, comparison: Comparison
) -> tuple[str, tuple[Curve, ...]]:
    """What is shown as a difference, ``A − B``, and its curves; an empty name where none is."""
    base, letter = comparison.base, viewing.difference
    if base is None or not letter or letter not in comparison.apart:
        return "", ()
    if letter == WATCHED:
        own = model.curves(key, viewing.frozen, viewing.rank)
    else:
        own = comparison.model_of(letter).curves(key, viewing.frozen)
    return f"{letter} − {base.letter}", differences(own, base.model.curves(key))


def whole_span(model: RunModel, viewing: Viewing, comparison: Comparison) -> Span:
    """All the steps there are to show: a compared run that trained longer is seen to its end,
    unless the person looks back."""
    first, last = viewing.whole(model)
    if viewing.frozen is None:
        last = max(last, *(other.model.step or 0 for other in comparison.runs), 0)
    return first, last


def cursor_steps(
    model: RunModel, viewing: Viewing, comparison: Comparison
) -> npt.NDArray[np.int64]:
    """Steps a cursor stops at: the samples of the watched run, beyond its end those of others."""
    steps = model.sampled_steps(viewing.frozen)
    if viewing.frozen is not None:
        return steps
    end = int(steps[-1]) if len(steps) else -1
    others = [other.model.sampled_steps() for other in comparison.runs]
    return np.unique(np.concatenate([steps, *(found[found > end] for found in others)]))


class HeatData(Struct, frozen=True):
    """A heatmap and the curves of its rows. ``name``: ``A − B`` where it is a difference;
    ``heat`` None: those runs measured it in no layer that both have."""

    heat: Heat | None
    curves: tuple[Curve, ...]
    name: str = ""

    @property
    def title(self) -> str:
        """What stands after the metric's name."""
        return f" · {self.name}" if self.name else ""

    @property
    def note(self) -> str:
        """Why there is nothing to see."""
        return f"{self.name}: they have no layers of this metric in common"


def heat_data(
    model: RunModel,
    viewing: Viewing,
    diagnosis: Diagnosis | None,
    key: str,
    columns: int,
    comparison: Comparison,
    tall: int = 3,
) -> HeatData:
    """The heatmap of ``key`` in a number of columns."""
    group = model.groups[key]
    name, curves = contrast(model, viewing, key, comparison)
    if name and not curves:
        return HeatData(None, (), name)
    form: Form = group.metric.form if group.metric else "statistic"
    if not name:
        curves = model.curves(key, viewing.frozen, viewing.rank)
    marks = marks_of(model, diagnosis, viewing.frozen)
    span = viewing.steps.span(whole_span(model, viewing, comparison))
    whole = viewing.settled(model)
    shown: Form = "signed" if name else form

    def made() -> Heat:
        seen = [cut(curve, span) for curve in curves]
        return heat(seen, shown, columns, marks, tall=tall, whole=whole)

    settings = (span, shown, columns, marks, tall, whole)
    return HeatData(_heats.of(curves, settings, made), curves, name)
