from functools import partial

import numpy as np
import pytest
from curves import curve as curve_of
from screen_driver import FakeSource, GatedSource, Script, running, settle, show

from monitor import glyphs
from monitor.charts.chart_pane import ChartPane
from monitor.charts.line import text_of
from monitor.charts.line_chart import ChartData, draw
from monitor.charts.raster import cut, value_at
from monitor.charts.smoothing import ema, smoothed
from monitor.charts.step_axis import step_at
from monitor.run_model import StepMark
from monitor.step_window import SMALLEST, StepWindow
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.view_bar import ViewBar

WHOLE = (0, 100)
STEPS = np.arange(0, 101, 10)
curve = partial(curve_of, every=10)


def drawn(data, width=60, height=12):
    return [text_of(line) for line in draw(data, width, height)]


def charts(app):
    return [pane for pane in app.view.query_one(ChartGrid).panes if pane.data]


def test_a_cursor_moves_by_samples_and_stops_at_the_ends():
    window = StepWindow()
    window.move(STEPS, -1, WHOLE)
    assert window.cursor == 100, "it first appears at the newest sample"
    window.move(STEPS, -1, WHOLE)
    window.move(STEPS, -3, WHOLE)
    assert window.cursor == 60
    window.cursor = 63
    window.move(STEPS, 1, WHOLE)
    assert window.cursor == 70
    window.cursor = 63
    window.move(STEPS, -1, WHOLE)
    assert window.cursor == 60
    window.move(STEPS, 99, WHOLE)
    assert window.cursor == 100
    window.move(STEPS, -99, WHOLE)
    assert window.cursor == 0
    StepWindow().move(np.array([], np.int64), 1, WHOLE)


def test_a_zoom_keeps_the_cursor_in_its_place():
    window = StepWindow(cursor=25)
    window.zoom(0.5, WHOLE)
    first, last = window.span(WHOLE)
    assert last - first == 50
    assert (25 - first) / 50 == pytest.approx(0.25, abs=0.02)
    window.zoom(0.5, WHOLE, centre=first)
    assert window.span(WHOLE)[0] == first
    for _ in range(20):
        window.zoom(0.5, WHOLE)
    assert window.span(WHOLE)[1] - window.span(WHOLE)[0] == SMALLEST
    for _ in range(20):
        window.zoom(2.0, WHOLE)
    assert window.zoomed is None


def test_a_zoom_follows_its_cursor_and_stays_within_the_run():
    window = StepWindow(zoomed=(0, 20), cursor=20)
    window.move(STEPS, 2, WHOLE)
    assert window.zoomed == (20, 40)
    window.pan(10, WHOLE)
    assert window.zoomed == (80, 100)
    window.pan(-0.25, WHOLE)
    assert window.zoomed == (75, 95)
    assert window.span((0, 5000)) == (75, 95), "new data leave it alone"
    assert window.leave()
    assert window.cursor is None
    assert window.leave()
    assert window.zoomed is None
    assert not window.leave()


def test_a_moving_average_of_a_constant_is_that_constant():
    assert ema(np.full(50, 3.0, np.float32), 0.9) == pytest.approx(np.full(50, 3.0))


def test_a_moving_average_is_the_recursion_it_stands_for():
    values = np.random.default_rng(0).normal(size=400).astype(np.float32)
    for weight in (0.6, 0.9, 0.97):
        total = share = 0.0
        expected = []
        for value in values:
            total = weight * total + value
            share = weight * share + 1
            expected.append(total / share)
        assert ema(values, weight) == pytest.approx(expected, abs=0.01)


def test_a_moving_average_passes_over_gaps_and_keeps_them():
    values = np.array([1, np.nan, np.inf, 3, 3], np.float32)
    found = ema(values, 0.6)
    assert list(np.isnan(found)) == [False, True, True, False, False]
    assert found[0] == 1
    assert 1 < found[3] < 3
    (marked,) = smoothed([curve(values)], 0.6)
    assert list(marked.marks) == list(curve(values).marks)
    assert np.isnan(ema(np.full(4, np.nan, np.float32), 0.6)).all()


def test_curves_averaged_together_are_those_averaged_alone():
    random = np.random.default_rng(0)
    curves = [curve(random.normal(size=size)) for size in (300, 1, 300, 40)]
    curves[2].low[100:120] = np.nan
    together = smoothed(curves, 0.9)
    assert smoothed(curves, 0.9) is together, "made once"
    assert smoothed(curves, 0.0) == tuple(curves)
    for one, found in zip(curves, together, strict=True):
        (alone,) = smoothed([one], 0.9)
        np.testing.assert_array_equal(found.latest, alone.latest)
        assert len(found) == len(one) and found.label == one.label


def test_only_the_steps_of_the_span_are_drawn_and_scaled():
    values = np.zeros(11)
    values[1] = 1000.0
    data = ChartData("x", (curve(values),), (50, 100))
    text = "\n".join(drawn(data))
    assert "1000" not in text
    assert "50" in text
    assert len(cut(curve(values), (50, 100))) == 6


def test_marks_outside_the_span_are_not_drawn_at_its_edge():
    data = ChartData("x", (curve(np.arange(11)),), (50, 100), marks=(StepMark(20, "fault"),))
    assert glyphs.FAULT_MARK not in "\n".join(drawn(data))


def test_the_cursor_tells_the_value_of_every_curve():
    curves = (curve(np.arange(11.0), "0"), curve(np.arange(11.0) * 2, "1"))
    lines = drawn(ChartData("x", curves, WHOLE, cursor=50))
    assert "5.00 … 10.0" in lines[0]
    assert "0 5.00  1 10.0" in lines[1]
    assert sum(glyphs.CURSOR_LINE in line for line in lines) >= 4
    assert glyphs.CURSOR_FOOT in lines[-2]
    assert lines[-1].split() == ["0", "50", "100"]
    assert len(lines) == 12
    assert {len(line) for line in lines} == {60}


def test_the_value_at_a_step_is_the_last_one_before_it():
    found = curve(np.arange(11.0))
    assert [value_at(found, step) for step in (0, 9, 10, 55, 1000)] == [0, 0, 1, 5, 10]
    assert np.isnan(value_at(curve([]), 3))


def test_columns_and_steps_are_inverse():
    assert [step_at(column, (10, 30), 21) for column in (0, 10, 20)] == [10, 20, 30]


def test_the_raw_line_stays_behind_the_smoothed_one():
    raw = curve(np.random.default_rng(1).normal(size=100), every=1)
    data = ChartData("x", smoothed([raw], 0.97), (0, 99), raw=(raw,), note="EMA 0.97")
    roles = {role for line in draw(data, 70, 12) for text, role in line if text.strip()}
    braille = {
        role
        for line in draw(data, 70, 12)
        for text, role in line
        if any(0x2800 < ord(c) < 0x2900 for c in text)
    }
    assert braille == {"faint", "accent"}
    assert "muted" in roles
    assert "EMA 0.97" in text_of(draw(data, 70, 12)[0])


async def test_one_cursor_in_every_chart():
    async with running(FakeSource(Script(fault_step=200)), size=(120, 40)) as (app, pilot):
        await show(pilot, "metrics")
        await pilot.press("left", "left", "left")
        assert app.viewing.steps.cursor == 370
        assert {pane.data.cursor for pane in charts(app)} == {370}
        assert all("370" in pane.text for pane in charts(app))
        assert "cursor 370" in app.query_one(ViewBar).text
        await pilot.press("right_curly_bracket")
        assert app.viewing.steps.cursor == 390
        for view in ("overview", "diagnosis", "layers"):
            await show(pilot, view)
            assert app.viewing.steps.cursor == 390


async def test_a_zoom_survives_new_data():
    source = GatedSource(Script(), allowed=40)
    async with running(source) as (app, pilot):
        await pilot.press("plus", "plus")
        zoomed = app.viewing.steps.zoomed
        assert zoomed is not None
        source.allowed = 1000
        await settle(pilot, lambda: app.model.frames == 40)
        assert app.viewing.steps.zoomed == zoomed
        assert {pane.data.span for pane in charts(app)} == {zoomed}
        assert "zoom " in app.query_one(ViewBar).text
        await pilot.press("0")
        assert {pane.data.span for pane in charts(app)} == {(0, 399)}


async def test_zoom_and_pan_by_keyboard():
    async with running() as (app, pilot):
        await pilot.press("right_parenthesis")
        assert "zoom in first" in app.query_one("#status").text
        await pilot.press("plus")
        before = app.viewing.steps.zoomed
        await pilot.press("right_parenthesis")
        assert app.viewing.steps.zoomed[0] > before[0]
        await pilot.press("left_parenthesis", "minus")
        assert app.viewing.steps.zoomed is None


async def test_zoom_by_wheel_and_cursor_by_click():
    async with running(size=(120, 40)) as (app, pilot):
        await show(pilot, "metrics")
        pane = charts(app)[1]
        await pilot.click(pane, offset=(20, 4))
        assert app.viewing.selected == pane.data.title
        assert app.viewing.steps.cursor % 10 == 0
        from textual.events import MouseScrollUp

        place = {"x": 20, "y": 4, "delta_x": 0, "delta_y": 0, "button": 0}
        keys = {"shift": False, "meta": False, "ctrl": False}
        pane.post_message(MouseScrollUp(pane, **place, **keys))
        await pilot.pause()
        assert app.viewing.steps.zoomed is not None
        assert isinstance(pane, ChartPane)


async def test_e_smooths_and_keeps_the_raw_line():
    async with running() as (app, pilot):
        await pilot.press("e")
        data = charts(app)[0].data
        assert "EMA 0.6" in app.query_one(ViewBar).text
        assert len(data.raw) == len(data.curves) == 1
        assert np.nanstd(np.diff(data.curves[0].high)) < np.nanstd(np.diff(data.raw[0].high))
        await pilot.press("e", "e", "e")
        assert charts(app)[0].data.raw == ()
