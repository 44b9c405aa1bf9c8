"""What keeps a key from waiting: pictures in pieces, short turns of threads, nothing made twice."""

import gc
import sys
import weakref
from contextlib import asynccontextmanager

import numpy as np
import pytest
from screen_driver import FakeSource, GatedSource, Script, laid_out, running, settle, show
from textual.events import ScreenResume
from textual.geometry import Size

from monitor import chart_data, glyphs, in_pieces
from monitor.base_screen import HEIGHT_CLASSES, WIDTH_CLASSES, BaseScreen, size_classes
from monitor.charts import plotted, smoothing
from monitor.charts.chart_pane import ChartPane
from monitor.charts.heatmap_pane import HeatmapPane
from monitor.charts.raster import BRAILLE, strokes
from monitor.charts.scale import Scale, scale_for
from monitor.charts.step_axis import dot_column, dot_columns
from monitor.envelope import Envelope
from monitor.in_pieces import InPieces
from monitor.kept import Kept
from monitor.picture_due import picture_due
from monitor.run_model import RunModel
from monitor.sources.fake import records
from monitor.sources.source import Batch
from monitor.undisturbed import KEY_SECONDS, SWITCH_SECONDS, Undisturbed, uncollected
from monitor.widgets.chart_grid import ChartGrid


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
            assert app.picture.preparing.unfinished
            app.tick(gently=True)  # waits for the picture that is being drawn
            assert not any(pane._lines for pane in panes), "nothing is shown before all is ready"
            while app.picture.preparing.unfinished:
                await pilot.pause(0.005)
            assert app.picture.drawing.unfinished
            while app.picture.drawing.unfinished:
                await pilot.pause(0.005)
            assert [pane.text for pane in panes] == before
            await laid_out(pilot)


def chart_data_shown(app):
    found = [pane.data for pane in app.view.query(ChartPane) if pane.data is not None]
    assert found
    return found


async def test_a_key_draws_everything_at_once(monkeypatch):
    monkeypatch.setattr(in_pieces, "SLICE", 0.0)
    async with running(FakeSource(Script(steps=200)), size=(160, 50)) as (app, pilot):
        await settle(pilot)
        app.model.contents += 1
        app.tick(gently=True)
        while not app.picture.drawing.unfinished:
            await pilot.pause(0.001)
        app.action_cursor(-1)
        assert not app.picture.drawing.unfinished
        cursor = app.viewing.steps.cursor
        assert {data.cursor for data in chart_data_shown(app)} == {cursor}


@asynccontextmanager
async def preparing(monkeypatch):
    """The app while it prepares a picture of new data, and the last step of the one before."""
    monkeypatch.setattr(in_pieces, "SLICE", 0.0)
    script = Script(steps=200)
    async with running(GatedSource(script, 30), size=(160, 50)) as (app, pilot):
        await settle(pilot)
        before = drawn_step(app)
        app.model.take(Batch(records=records(script)[30:60], link="live"))
        app.tick(gently=True)
        assert app.picture.preparing.unfinished
        yield app, pilot, before


async def test_a_key_while_a_picture_is_prepared_draws_the_one_before(monkeypatch):
    async with preparing(monkeypatch) as (app, pilot, before):
        made, curves = app.model.snapshot().contents, app.model.curves("training/loss")
        app.action_cursor(-1)
        assert {data.cursor for data in chart_data_shown(app)} == {app.viewing.steps.cursor}
        assert drawn_step(app) == before
        assert app.model.curves("training/loss") is curves
        assert app.picture.preparing.unfinished, "it goes on"
        while app.picture.unfinished:
            await pilot.pause(0.001)
        assert drawn_step(app) == app.model.step > before
        assert not app.model.behind and app.model.contents == made


async def test_news_for_a_view_that_is_not_there_yet_wait_for_it():
    async with running(FakeSource(Script(steps=200)), size=(160, 50)) as (app, pilot):
        app.action_show_view("metrics")
        app.model.contents += 1
        app.tick(gently=True)
        assert not app.picture.unfinished
        await laid_out(pilot)
        assert drawn_step(app) == app.model.step


async def test_a_view_that_is_paused_is_not_drawn_over(monkeypatch):
    async with preparing(monkeypatch) as (app, pilot, before):
        app.look_at(before)
        assert not app.picture.unfinished
        await pilot.pause()
        assert drawn_step(app) == before


async def test_what_is_prepared_is_what_is_drawn(monkeypatch):
    monkeypatch.setattr(in_pieces, "SLICE", 0.0)
    script = Script(steps=200)
    async with running(GatedSource(script, 40), size=(204, 60), smoothing=0.9) as (app, pilot):
        await settle(pilot)
        app.model.take(Batch(records=records(script)[40:41], link="live"))
        assert app.view.query_one(HeatmapPane).display
        prepared = app.model.step
        app.tick(gently=True)
        app.model.take(Batch(records=records(script)[41:42], link="live"))  # for the next one
        while app.picture.preparing.unfinished:
            await pilot.pause(0.001)

        def unprepared(*_):
            raise AssertionError("made while it was drawn")

        monkeypatch.setattr(plotted, "_made", unprepared)
        monkeypatch.setattr(chart_data, "heat", unprepared)
        monkeypatch.setattr(smoothing, "_made", unprepared)
        while app.picture.drawing.unfinished:
            await pilot.pause(0.001)
        assert drawn_step(app) == prepared
        monkeypatch.undo()


async def test_a_cursor_moves_over_the_heatmap():
    async with running(FakeSource(Script(steps=200)), size=(204, 60)) as (app, pilot):
        await settle(pilot)
        feet = set()
        for _ in range(3):
            app.action_cursor(-3)
            (line,) = [line for line in app.view.query_one(HeatmapPane).text.splitlines()
                       if glyphs.CURSOR_FOOT in line]  # fmt: skip
            feet.add(line.index(glyphs.CURSOR_FOOT))
            assert line.count(glyphs.CURSOR_FOOT) == 1
        assert len(feet) > 1


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


def test_between_pictures_the_curves_stay_those_of_the_picture():
    everything = records(Script(steps=200))
    model, key = RunModel(), "attention/entropy"
    model.take(Batch(records=everything[:-20], link="live"))
    model.hold()
    found, reach = model.curves(key), model.reach
    model.take(Batch(records=everything[-20:], link="live"))
    assert model.behind
    assert model.curves(key) is found and model.reach == reach
    assert reach[1] < model.step
    model.hold()
    assert not model.behind
    assert model.reach == (0, model.step)
    assert model.curves(key)[0].last[-1] > found[0].last[-1]


def test_another_run_is_not_held_to_the_picture_of_the_last_one():
    model, key = RunModel(), "attention/entropy"
    model.take(Batch(records=records(Script(steps=200)), link="live"))
    model.hold()
    model.curves(key)
    model.take(Batch(records=records(Script(steps=50)), link="live"))
    assert model.reach == (0, model.step) == (0, 49)
    assert model.curves(key)[0].last[-1] < 50


def drawn_step(app):
    """The last step that the charts on screen go to."""
    return app.view.query_one(ChartGrid).panes[0].data.span[1]


async def test_a_key_draws_the_data_of_the_picture_and_the_next_picture_all_there_is():
    script = Script(steps=200)
    source = GatedSource(script, 30)
    async with running(source) as (app, pilot):
        before = drawn_step(app)
        app.model.take(Batch(records=records(script)[30:60], link="live"))
        assert app.model.step > before
        await pilot.press("right_square_bracket")
        assert drawn_step(app) == before
        await laid_out(pilot)
        assert drawn_step(app) == app.model.step


async def test_pausing_and_going_on_draw_all_that_was_read():
    script = Script(steps=200)
    async with running(GatedSource(script, 30)) as (app, _):
        for stop in (60, 90):
            app.model.take(Batch(records=records(script)[stop - 30 : stop], link="live"))
            app.action_toggle_view()
            assert drawn_step(app) == app.model.step
            assert app.model.curves("training/loss")[0].last[-1] == app.model.step


async def test_after_such_a_key_the_next_picture_needs_no_word_from_the_source():
    script = Script(steps=200)
    async with running(GatedSource(script, 30)) as (app, pilot):
        app.model.take(Batch(records=records(script)[30:60], link="live"))
        app._drawn = (app.model.contents, app.diagnoses)  # as if a tick had begun its picture
        app.picture.drop()
        await pilot.press("right_square_bracket")
        for _ in range(2000):
            if drawn_step(app) == app.model.step:
                break
            await pilot.pause(0.005)
        assert drawn_step(app) == app.model.step


@pytest.mark.parametrize(
    ("acted", "due"),
    [(None, 10.25), (0.0, 10.25), (10.0, 10.25), (10.2, 10.35), (10.34, 10.49), (10.44, 10.5)],
)
def test_new_data_wait_for_the_keys_of_a_live_run_but_not_for_long(acted, due):
    assert picture_due(10.0, 0.25, acted) == pytest.approx(due)
    assert picture_due(10.0, 0.8, acted) == pytest.approx(10.8), "never sooner than wanted"


@pytest.mark.parametrize(("low", "high", "log"), [(-3.0, 5.0, False), (1e-6, 10.0, True)])
def test_one_place_on_an_axis_is_found_as_many_are(low, high, log):
    scale = Scale(low, high, log, ())
    values = np.array([low, high, -9.0, 0.0, 1e-7, 0.3, 4.999, 50.0, np.inf, -np.inf])
    alone = [scale.share(value) for value in values.tolist()]
    np.testing.assert_allclose(alone, scale.position(values), atol=1e-12)
    steps = np.arange(-20, 140)
    alone = [dot_column(step, (3, 117), 41) for step in steps.tolist()]
    np.testing.assert_array_equal(alone, dot_columns(steps, (3, 117), 41))


@pytest.mark.parametrize("size", [(80, 24), (100, 32), (204, 60), (120, 31)])
async def test_the_screen_starts_with_the_classes_of_its_size(size):
    async with running(size=size) as (app, _):
        given = {name for name in size_classes(Size(*size)) if app.screen.has_class(name)}
        every = {name for _, name in (*WIDTH_CLASSES, *HEIGHT_CLASSES)}
        assert given == every & app.screen.classes and len(given) == 2


async def test_only_when_first_shown_the_styles_are_those_just_found():
    async with running() as (app, _):
        for screen, found_again in ((BaseScreen(Size(80, 24)), False), (app._base, True)):
            event = ScreenResume()
            screen._on_screen_resume(event)
            assert event.refresh_styles is found_again


async def test_a_heatmap_has_tiles_for_a_screen_that_became_wide():
    async with running(size=(80, 40)) as (app, pilot):
        await show(pilot, "layers")
        pane = app.view.query_one(HeatmapPane)
        await pilot.resize_terminal(204, 60)
        await laid_out(pilot)
        shown = [tile for tile in pane.query(".heat-tile") if tile.display]
        assert sum(tile.size.width for tile in shown) == pane.columns > 80
        assert any(tile.text.strip() for tile in shown)


def test_a_keys_picture_has_the_interpreter_for_longer():
    before = sys.getswitchinterval()
    undisturbed = Undisturbed()
    with undisturbed.first():
        assert sys.getswitchinterval() == pytest.approx(KEY_SECONDS)
    assert sys.getswitchinterval() == pytest.approx(before)
    with pytest.raises(KeyError), undisturbed.first():
        raise KeyError
    assert sys.getswitchinterval() == pytest.approx(before)


def test_what_is_made_of_the_same_objects_is_made_once():
    kept, made = Kept(2), []

    def of(*objects, settings=()):
        return kept.of(objects, settings, lambda: made.append(objects) or len(made))

    one, other = [1], [1]
    assert (of(one), of(one), of(other), of(one, settings=(5,))) == (1, 1, 2, 3)
    assert kept.size == 2
    assert of(other) == 2, "asked for later than the first"
    assert of(one) == 4, "left out to make room"


def test_another_object_never_passes_for_one_that_is_gone():
    kept, array = Kept(2), np.zeros(3)
    there = weakref.ref(array)
    kept.of([array], (), lambda: 1)
    del array
    assert there() is not None
    kept.of([[1]], (), lambda: 2)
    kept.of([[2]], (), lambda: 3)
    assert there() is None


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
    together = strokes(curves, (0, 900), scale, 120, 40)
    assert (together[0] <= together[1]).any(axis=1).tolist() == [True] * 5 + [False]
    for place, curve in enumerate(curves):
        for found, alone in zip(together, strokes([curve], (0, 900), scale, 120, 40), strict=True):
            np.testing.assert_array_equal(found[place], alone[0])


def test_a_plot_is_kept_while_its_curves_are_the_same():
    curves = history(2, 100)
    first = plotted.plotted(curves, (0, 300), False, 40, 8, BRAILLE)
    assert plotted.plotted(curves, (0, 300), False, 40, 8, BRAILLE) is first
    assert plotted.plotted(curves, (0, 300), True, 40, 8, BRAILLE) is not first
    others = [plotted.plotted(curves, (0, n), False, 40, 8, BRAILLE) for n in range(100, 150)]
    assert plotted._kept.size == plotted.KEPT
    again = plotted.plotted(curves, (0, 300), False, 40, 8, BRAILLE)
    assert again is not first
    np.testing.assert_array_equal(again.characters, first.characters)
    assert others[-1].owner.shape == (8, 40)
