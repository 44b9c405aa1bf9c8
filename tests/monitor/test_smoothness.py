"""What keeps a key from waiting: pictures in pieces, short turns of threads, nothing made twice."""

import gc
import sys

import numpy as np
import pytest
from screen_driver import FakeSource, Script, laid_out, running, settle, show

from monitor import in_pieces
from monitor.charts import plotted
from monitor.charts.chart_pane import ChartPane
from monitor.charts.raster import BRAILLE, curve_dots, curves_dots
from monitor.charts.scale import scale_for
from monitor.envelope import Envelope
from monitor.in_pieces import InPieces
from monitor.run_model import RunModel
from monitor.sources.fake import records
from monitor.sources.source import Batch
from monitor.undisturbed import SWITCH_SECONDS, Undisturbed, uncollected


def test_a_picture_in_pieces_makes_room_after_each_slice(monkeypatch):
    monkeypatch.setattr(in_pieces, "SLICE", 0.0)
    drawn, later = [], []
    picture = InPieces(lambda seconds, call: later.append(call))
    picture.begin([lambda n=n: drawn.append(n) for n in range(3)])
    assert (drawn, len(later), picture.unfinished) == ([0], 1, True)
    later.pop()()
    assert drawn == [0, 1]
    picture.begin([lambda: drawn.append("other")])
    assert not picture.unfinished
    later.pop()()  # of the picture before: nothing is left of it
    assert drawn == [0, 1, "other"]
    picture.begin([lambda: drawn.append("kept"), lambda: drawn.append("dropped")])
    picture.drop()
    later.pop()()
    assert drawn[-1] == "kept"
    there = [True]
    picture.begin([lambda: drawn.append("there"), lambda: drawn.append("gone")], lambda: there[0])
    there.clear()
    there.append(False)  # what was drawn on is taken down
    later.pop()()
    assert drawn[-1] == "there" and not picture.unfinished


async def test_drawn_in_pieces_the_screen_says_the_same(monkeypatch):
    monkeypatch.setattr(in_pieces, "SLICE", 0.0)
    async with running(FakeSource(Script(steps=200)), size=(160, 50)) as (app, pilot):
        for view in ("overview", "metrics"):
            await show(pilot, view)
            panes = [pane for pane in app.view.query(ChartPane) if pane.display]
            panes += [pane for pane in app.view.query(".heat-tile") if pane.display]
            before = [pane.text for pane in panes]
            app.model.contents += 1
            for pane in panes:
                pane._lines = ()
                pane.data = None
            app.tick(gently=True)
            assert app.picture.unfinished
            app.tick(gently=True)  # waits for the picture that is being drawn
            while app.picture.unfinished:
                await pilot.pause(0.005)
            assert [pane.text for pane in panes] == before
            await laid_out(pilot)


async def test_a_key_draws_everything_at_once(monkeypatch):
    monkeypatch.setattr(in_pieces, "SLICE", 0.0)
    async with running(FakeSource(Script(steps=200)), size=(160, 50)) as (app, pilot):
        await settle(pilot)
        app.model.contents += 1
        app.tick(gently=True)
        assert app.picture.unfinished
        app.action_cursor(-1)
        assert not app.picture.unfinished
        cursor = app.viewing.steps.cursor
        charts = [pane.data for pane in app.view.query(ChartPane) if pane.data is not None]
        assert charts
        assert {data.cursor for data in charts} == {cursor}


def test_threads_take_short_turns_and_start_up_is_not_collected_again():
    before = sys.getswitchinterval(), gc.get_threshold()
    setting = Undisturbed()
    setting.begin()
    assert sys.getswitchinterval() == SWITCH_SECONDS
    assert gc.get_freeze_count() > 1000
    setting.begin()
    setting.end()
    assert (sys.getswitchinterval(), gc.get_threshold()) == before
    assert gc.get_freeze_count() < 1000
    setting.end()


def test_nothing_is_collected_while_libraries_load():
    assert gc.isenabled()
    try:
        with uncollected():
            assert not gc.isenabled()
            held = gc.get_freeze_count()
            loaded = [[] for _ in range(100)]
        assert gc.isenabled() and gc.get_freeze_count() >= held + len(loaded)
        with pytest.raises(ImportError), uncollected():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_curves_are_the_same_objects_until_more_is_read():
    everything = records(Script(steps=200))
    model = RunModel()
    model.take(Batch(records=everything[:-20], link="live"))
    key = "attention/entropy"
    found = model.curves(key)
    assert model.curves(key) is found
    assert model.curves(key, 100) is model.curves(key, 100)
    assert len(model.curves(key, 50)[0]) < len(found[0])
    for other in list(model.groups) * 2:
        model.curves(other)
    model.curves(key)
    model.take(Batch(records=everything[-20:], link="live"))
    assert model.curves(key)[0].last[-1] > found[0].last[-1]


def history(columns, samples, capacity=64, seed=0):
    random = np.random.default_rng(seed)
    values = random.normal(size=(samples, columns)).astype(np.float32)
    values[random.random(values.shape) < 0.03] = np.nan
    envelope = Envelope(columns, capacity)
    envelope.extend(np.arange(0, 3 * samples, 3), values)
    return [envelope.curve(column, str(column)) for column in range(columns)]


def test_curves_drawn_together_are_those_drawn_alone():
    curves = [*history(3, 300), *history(2, 40, seed=1), *history(1, 0)]
    scale = scale_for(curves, False)
    together = curves_dots(curves, (0, 900), scale, 120, 40)
    assert together.any(axis=(1, 2)).tolist() == [True] * 5 + [False]
    for curve, dots in zip(curves, together, strict=True):
        np.testing.assert_array_equal(dots, curve_dots(curve, (0, 900), scale, 120, 40))


def test_a_plot_is_kept_while_its_curves_are_the_same():
    curves = history(2, 100)
    first = plotted.plotted(curves, (0, 300), False, 40, 8, BRAILLE)
    assert plotted.plotted(curves, (0, 300), False, 40, 8, BRAILLE) is first
    assert plotted.plotted(curves, (0, 300), True, 40, 8, BRAILLE) is not first
    others = [plotted.plotted(curves, (0, n), False, 40, 8, BRAILLE) for n in range(100, 150)]
    assert len(plotted._kept) == plotted.KEPT
    again = plotted.plotted(curves, (0, 300), False, 40, 8, BRAILLE)
    assert again is not first
    np.testing.assert_array_equal(again.characters, first.characters)
    assert others[-1].owner.shape == (8, 40)
