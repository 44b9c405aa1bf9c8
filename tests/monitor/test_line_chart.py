"""A whole line chart: title, curves, axes, marks, cursor."""

import numpy as np
import pytest
from curves import curve
from msgspec.structs import replace

from monitor import glyphs
from monitor.charts.line import text_of, width_of
from monitor.charts.line_chart import ChartData, draw
from monitor.charts.scale import round_steps
from monitor.envelope import Envelope
from monitor.run_model import StepMark


@pytest.mark.parametrize("size", [(80, 12), (37, 8), (36, 5), (20, 3)])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_chart_fills_its_place_exactly(size, ascii_only):
    width, height = size
    marks = (StepMark(10, "fault"), StepMark(20, "flagged"))
    curves = tuple(curve(np.sin(np.arange(50) / 9 + i), str(i)) for i in range(4))
    data = ChartData("attention/entropy", curves, (0, 49), "of log n", marks=marks)
    lines = draw(data, width, height, ascii_only)
    assert len(lines) == height
    assert {width_of(line) for line in lines} == {width}


def test_marks_and_not_finite_values_stand_on_the_axis():
    values = np.ones(60)
    values[30], values[40], values[50] = np.nan, np.inf, -np.inf
    data = ChartData("training/loss", (curve(values),), (0, 59), marks=(StepMark(10, "fault"),))
    axis = text_of(draw(data, 70, 10)[-2])
    for sign in "▲×↑↓":
        assert axis.count(sign) == 1
    assert axis.index("▲") < axis.index("×") < axis.index("↑") < axis.index("↓")


def test_rare_metrics_do_not_cry_nan():
    values = np.full(60, np.nan)
    values[::10] = 1.0
    data = ChartData("validation/accuracy", (curve(values),), (0, 59))
    assert "×" not in text_of(draw(data, 70, 10)[-2])


def test_a_chart_without_values_says_why():
    data = ChartData("mask/cross_mass", (), (0, 9), absent="the batch is not packed")
    assert any("the batch is not packed" in text_of(line) for line in draw(data, 60, 8))
    data = ChartData("training/loss", (curve([np.inf, np.inf]),), (0, 9))
    assert any("no finite value" in text_of(line) for line in draw(data, 60, 8))


def test_layers_are_named_where_their_curves_end():
    curves = (curve(np.zeros(9), "0"), curve(np.ones(9), "1"), curve(np.ones(9), "2"))
    lines = [text_of(line).rstrip() for line in draw(ChartData("x/y", curves, (0, 8)), 50, 10)]
    assert lines[1].endswith("1–2")
    assert any(line.endswith(" 0") for line in lines[2:8])


def test_round_steps_stand_between_the_first_and_the_last():
    assert round_steps((0, 179), 4) == (50, 100, 150)
    assert round_steps((130, 160), 2) == (140, 150)
    assert round_steps((0, 1), 5) == ()
    assert round_steps((0, 100), 0) == ()
    data = ChartData("x/y", (curve(np.arange(180.0)),), (0, 179))
    assert text_of(draw(data, 80, 10)[-1]).split() == ["0", "50", "100", "150", "179"]
    assert text_of(draw(data, 20, 10)[-1]).split() == ["0", "179"]
    for cursor, told in (
        (146, ["0", "50", "100", "146", "179"]),  # no remnant of 150
        (1, ["1", "50", "100", "150", "179"]),
        (178, ["0", "50", "100", "150", "178"]),
    ):
        at = replace(data, cursor=cursor)
        assert text_of(draw(at, 80, 10)[-1]).split() == told


def test_of_a_metric_measured_rarely_the_newest_value_is_told():
    values = np.full(40, np.nan)
    values[[0, 20]] = 0.5, 0.25
    data = ChartData("x/y", (curve(values),), (0, 39))
    assert text_of(draw(data, 50, 10)[0]).rstrip().endswith("0.250")
    often = np.ones(40)
    often[-1] = np.nan
    data = ChartData("x/y", (curve(often),), (0, 39))
    assert text_of(draw(data, 50, 10)[0]).rstrip().endswith("nan")


def test_a_narrow_title_keeps_the_metric_and_gives_up_the_unit_first():
    envelope = Envelope(1, 64)
    envelope.extend(np.arange(0, 40, 10), np.ones((4, 1), np.float32))
    data = ChartData("residual_attention/sum_error", (envelope.curve(0),), (0, 30), "relative")
    titles = {width: text_of(draw(data, width, 8)[0]) for width in (60, 40, 30)}
    assert "residual_attention/sum_error" in titles[60]
    assert titles[60].rstrip().endswith("relative")
    assert "residual_attention/sum_error" in titles[40]
    assert "relative" not in titles[40]
    assert "…/sum_error" in titles[30]


def test_a_cursor_leaves_nothing_where_it_was():
    curves = (curve(np.arange(40.0)),)
    data = ChartData("x/y", curves, (0, 39), marks=(StepMark(30, "fault"),))
    first, _, again = (draw(replace(data, cursor=step), 60, 12) for step in (5, 20, 5))
    assert first == again
    assert draw(data, 60, 12) == draw(data, 60, 12)
    assert not any(glyphs.CURSOR_LINE in text_of(line) for line in draw(data, 60, 12))
