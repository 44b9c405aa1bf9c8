"""The mouse reaches what the keys reach."""

import pytest
from screen_driver import FakeReplay, FakeSource, Script, laid_out, running, settle, show
from textual.events import MouseDown, MouseMove, MouseScrollDown, MouseScrollRight, MouseScrollUp

from monitor.charts.chart_pane import ChartPane
from monitor.charts.heatmap_pane import HeatmapPane, _Tile
from monitor.charts.line import width_of
from monitor.charts.raster import value_at
from monitor.formatting import number
from monitor.glyphs import CURSOR_LINE
from monitor.keys import KEYS
from monitor.run_catalogue import ListedRun
from monitor.view_names import NAMES
from monitor.widgets.causes_pane import CausesPane
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.diagnosis_pane import DiagnosisPane
from monitor.widgets.event_log import EventLog
from monitor.widgets.evidence_pane import EvidencePane
from monitor.widgets.graph_drawing import LABEL_WIDTH, GraphDrawing
from monitor.widgets.graph_layout import lay_out
from monitor.widgets.graph_pane import GraphPane
from monitor.widgets.help_screen import HelpScreen
from monitor.widgets.key_footer import KeyFooter, footer
from monitor.widgets.run_header import RunHeader
from monitor.widgets.runs_pane import RunsPane
from monitor.widgets.scrub_bar import ScrubBar
from monitor.widgets.site_pane import SitePane
from probe.schema import Anatomy, Site

FAULTY = Script(fault_step=200)


def wheel(kind, pane, x, y, shift=False):
    at = {"screen_x": pane.region.x + x, "screen_y": pane.region.y + y}
    place = {"x": x, "y": y, "delta_x": 0, "delta_y": 0, "button": 0, **at}
    pane.post_message(kind(pane, **place, shift=shift, meta=False, ctrl=False))


def line_with(pane, word):
    """The line of a pane that says something, its frame counted."""
    return 1 + next(at for at, line in enumerate(pane.text.splitlines()) if word in line)


async def test_a_component_is_clicked_and_entered():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "graph")
        graph = app.view.query_one(GraphPane)
        line = line_with(graph, "qkv")
        bead = graph.text.splitlines()[line - 1].index("·", LABEL_WIDTH)
        await pilot.click(graph, offset=(1 + bead, line))
        assert app.view._site == "qkv@0"
        # On a row's name: the same layer of that row.
        app.view.choose_site("qkv@2")
        await laid_out(pilot)
        await pilot.click(graph, offset=(3, line_with(graph, "score")))
        assert app.view._site == "score@2"
        await pilot.click(graph, offset=(3, line_with(graph, "score")), times=2)
        assert app.view._metric == 0
        site = app.view.query_one(SitePane)
        await laid_out(pilot)
        listed = len(site._owners)
        await pilot.click(site, offset=(3, listed))
        chosen = app.view._metric
        assert chosen == site._owners[-1]
        wheel(MouseScrollUp, site, 3, 3)
        await pilot.pause()
        assert app.view._metric == max(chosen - 1, 0)
        await pilot.click(site, offset=(3, listed), times=2)
        await laid_out(pilot)
        assert app.viewing.view == "metrics"
        assert app.viewing.selected.startswith("score/")


def test_every_component_drawn_is_found_where_it_stands():
    for layers in (2, 60):
        found = [Site("embedding", "embedding"), Site("output", "output")]
        found += [Site(f"qkv@{n}", "qkv", n) for n in range(layers)]
        found += [Site(f"ffn@{n}", "ffn", n) for n in range(layers)]
        numbers = (layers, 8, 2, 2, 4, 50, 1000)
        anatomy = Anatomy("Small", "encoder", *numbers, "post", "learned", tuple(found))
        drawing = GraphDrawing(lay_out(anatomy), {"ffn@31": 0.9}, (), 40, 30)
        height = len(drawing.draw())
        seen = {drawing.site_at(x, y) for y in range(height) for x in range(40)} - {None}
        assert {"embedding", "output", "qkv@0", "ffn@0"} <= seen
        if layers == 2:
            assert seen == {site.name for site in found}
        else:
            assert "ffn@31" in seen  # of those that share a column, the suspected one
        assert drawing.site_at(5, 99) is None


async def test_a_double_click_in_the_overview_leads_to_the_view():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await pilot.click(DiagnosisPane, offset=(5, 2))
        assert app.viewing.choice.current == "diagnosis"
        assert app.viewing.view == "overview"
        await pilot.click(DiagnosisPane, offset=(5, 2), times=2)
        assert app.viewing.view == "diagnosis"
        await show(pilot, "overview")
        graph = app.view.query_one(GraphPane)
        await pilot.click(graph, offset=(3, line_with(graph, "score")), times=2)
        await laid_out(pilot)
        assert app.viewing.view == "graph"
        assert app.view._site == "score@0"
        await show(pilot, "overview")
        await pilot.click(app.view.query_one(EventLog), offset=(5, 2), times=2)
        assert app.viewing.view == "events"


async def test_a_double_click_gives_a_chart_the_screen_and_takes_it_back():
    async with running() as (app, pilot):
        pane = app.view.query_one(ChartGrid).panes[1]
        title = pane.data.title
        await pilot.click(pane, offset=(20, 4), times=2)
        await laid_out(pilot)
        assert (app.viewing.view, app.viewing.selected, app.viewing.alone) == (
            "metrics", title, True
        )  # fmt: skip
        await pilot.click(app.view.query_one(ChartGrid).panes[0], offset=(20, 4), times=2)
        assert not app.viewing.alone


async def test_the_wheel_zooms_heatmaps_too_and_pans_sideways():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "layers")
        tile = app.view.query_one(HeatmapPane).query(_Tile).first()
        wheel(MouseScrollUp, tile, 0, 1)
        await pilot.pause()
        zoomed = app.viewing.steps.zoomed
        assert zoomed[0] <= 10
        assert zoomed[1] < 390
        wheel(MouseScrollRight, tile, 5, 1)
        await pilot.pause()
        moved = app.viewing.steps.zoomed
        assert moved[0] > zoomed[0]
        wheel(MouseScrollUp, tile, 5, 1, shift=True)
        await pilot.pause()
        assert app.viewing.steps.zoomed == zoomed
        for _ in range(3):
            wheel(MouseScrollDown, tile, 5, 1)
        await pilot.pause()
        assert app.viewing.steps.zoomed is None


async def test_a_band_of_the_verdict_sets_the_cursor():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "diagnosis")
        tile = app.view.query_one("#bands").query(_Tile).first()
        await pilot.click(tile, offset=(3, 0))
        assert app.viewing.steps.cursor in app.model.sampled_steps()


async def test_causes_are_chosen_by_key_and_click_and_explained():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "diagnosis")
        pane, evidence = app.view.query_one(CausesPane), app.view.query_one(EvidencePane)
        assert "▸" not in pane.text
        line = list(pane._owners).index(1)
        other = app.view._causes[1]
        await pilot.click(pane, offset=(12, 1 + line))
        assert app.viewing.choice.current == "causes"
        assert pane.text.splitlines()[line].startswith("▸")
        (topic,) = app.view.help_topics()
        assert topic.title.startswith(f"{other[0].replace('_', ' ')} ›")
        clues = [text for name, text in topic.lines if name in ("for", "against")]
        assert clues == [clue.sentence() for clue in app.view._alternatives()[0].clues]
        assert "↑↓ Cause" in app.query_one(KeyFooter).text
        await pilot.press("up")
        assert app.view.help_topics()[0].title.startswith("masking › mask application")
        await pilot.press("up", "down", *["down"] * 20)
        assert app.view._cause == pane.entries - 1
        await pilot.press("enter")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape")
        # What is chosen among the evidence stays, and is chosen again by a click.
        assert app.view._chosen == 0
        await pilot.click(evidence, offset=(5, 1))
        assert "▸" not in pane.text
        assert "↑↓ Evidence" in app.query_one(KeyFooter).text
        await pilot.click(evidence, offset=(5, 1), times=2)
        assert app.viewing.view == "metrics"


def column_of(pane, step):
    """The cell of a chart where a step is drawn, its frame counted."""
    return next(x for x in range(pane.content_size.width) if (pane.step_of(x) or -1) >= step)


@pytest.mark.parametrize("by_time", [False, True], ids=["over-steps", "over-time"])
async def test_a_click_on_a_chart_tells_every_chart_at_that_step(by_time):
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "metrics")
        app.viewing.by_time = by_time
        await laid_out(pilot)
        panes = [pane for pane in app.view.query_one(ChartGrid).panes if pane.data]
        await pilot.click(panes[1], offset=(column_of(panes[1], 200), 5))
        await laid_out(pilot)
        at = app.viewing.steps.cursor
        assert abs(at - 200) <= 10
        assert at in app.model.sampled_steps()
        assert len(panes) > 3
        for pane in panes:
            curves = app.model.curves(pane.data.title)
            values = [value_at(curve, at) for curve in curves]
            assert number(min(values)) in pane.text.splitlines()[0]
            assert CURSOR_LINE in pane.text
        # The names of the values are no place in time.
        await pilot.click(panes[0], offset=(2, 5))
        assert app.viewing.steps.cursor == at


async def test_a_click_on_a_heatmap_sets_the_cursor_of_the_charts():
    async with running(FakeSource(FAULTY), size=(204, 60)) as (app, pilot):
        for view in ("overview", "layers"):
            await show(pilot, view)
            pane = app.view.query_one(HeatmapPane)
            tile = pane.query(_Tile)[2]
            await pilot.click(tile, offset=(5, 1))
            await laid_out(pilot)
            at = app.viewing.steps.cursor
            assert at == tile.step_of(5)
            chart = app.view.query(ChartPane).first()
            assert chart.data.cursor == at
            (shown,) = {t.cursor for t in pane.query(_Tile)} - {None}
            assert tile.heat.steps[shown][1] == at
            app.viewing.steps.cursor = None


async def turn(pilot, pane, times, kind=MouseScrollDown):
    for _ in range(times):
        wheel(kind, pane, 3, 2)
    await pilot.pause()


async def test_the_wheel_stops_at_the_ends_of_a_list():
    runs = tuple(ListedRun("live", f"run {n}", f"id-{n}", "pid 1", 1.0) for n in range(3))
    async with running(FakeSource(FAULTY), find_runs=lambda: runs) as (app, pilot):
        await show(pilot, "diagnosis")
        evidence = app.view.query_one(EvidencePane)
        await turn(pilot, evidence, 1, MouseScrollUp)
        assert app.view._chosen == 0
        await turn(pilot, evidence, 20)
        assert app.view._chosen == len(app.view._evidence) - 1 > 0
        await show(pilot, "runs")
        await app.workers.wait_for_complete()
        await laid_out(pilot)
        listed = app.view.query_one(RunsPane)
        await turn(pilot, listed, 1, MouseScrollUp)
        assert app.view.chosen_run is runs[0]
        await turn(pilot, listed, 20)
        assert app.view.chosen_run is runs[-1]
        # The keys stop there too.
        await pilot.press("down")
        assert app.view.chosen_run is runs[-1]
        await show(pilot, "layers")
        await pilot.press("up")
        assert app.view._row == 0
        await pilot.press(*["down"] * 9)
        assert app.view._row == app.model.header.anatomy.layers - 1


async def test_the_wheel_goes_through_the_list_under_it():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "diagnosis")
        await turn(pilot, app.view.query_one(CausesPane), 2)
        assert (app.view._cause, app.view._chosen) == (2, 0)
        await turn(pilot, app.view.query_one(EvidencePane), 1)
        assert (app.view._cause, app.view._chosen) == (2, 1)
        assert "↑↓ Evidence" in app.query_one(KeyFooter).text


async def test_help_is_about_the_pane_chosen():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        titles = {}
        for pane in ("diagnosis", "heatmap", "graph", "events"):
            app.viewing.choice.current = pane
            titles[pane] = app.view.help_topics()[0].title
        assert titles["diagnosis"].startswith("masking › mask application")
        assert titles["heatmap"] == app.viewing.heatmap_key(app.model)
        assert titles["graph"] == "mask@2"
        assert titles["events"] == "training/loss"
        await pilot.pause()


async def test_the_rail_is_dragged_along():
    async with running(FakeReplay(FAULTY)) as (app, pilot):
        bar = app.query_one(ScrubBar)
        at = bar.region.x + bar.gutter.left

        def event(kind, x):
            place = {"x": x - bar.region.x, "y": 0, "delta_x": 0, "delta_y": 0, "button": 1}
            keys = {"shift": False, "meta": False, "ctrl": False}
            return kind(bar, **place, **keys, screen_x=x, screen_y=bar.region.y)

        bar.post_message(event(MouseDown, at + 60))
        await pilot.pause()
        first = app.viewing.frozen
        assert 0 < first < 390
        bar.post_message(event(MouseMove, at + 50))
        await pilot.pause()
        second = app.viewing.frozen
        assert second < first
        await pilot.mouse_up(bar, offset=(at + 50 - bar.region.x, 0))
        bar.post_message(event(MouseMove, at + 70))
        await pilot.pause()
        assert app.viewing.frozen == second
        assert f"step {second} of 390" in app.query_one(RunHeader).text


async def test_a_key_in_the_footer_is_clicked():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "metrics")
        await settle(pilot)
        bar = app.query_one(KeyFooter)

        async def click(word, at=0):
            await pilot.click(bar, offset=(bar.gutter.left + bar.text.index(word) + at, 0))

        await click("Enlarge")
        assert app.viewing.alone
        await click("←→")
        before = app.viewing.steps.cursor
        assert before is not None
        await click("←→")
        assert app.viewing.steps.cursor < before
        await click("←→", 1)
        assert app.viewing.steps.cursor == before
        await click("Help")
        assert isinstance(app.screen, HelpScreen)


@pytest.mark.parametrize("view", NAMES)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_word_of_the_footer_is_a_command(view, width):
    here = [key for key in KEYS if key.in_mode(False) and (not key.views or view in key.views)]
    line, places = footer(here, {}, width)
    assert places[0][0] == 0
    assert places[-1][1] == width_of(line)
    assert {action for _, _, action in places} <= {key.action for key in here}
    assert all(start < stop for start, stop, _ in places)
