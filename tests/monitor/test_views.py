from pathlib import Path

import pytest
from screen_driver import FakeReplay, FakeSource, Script, running, settle, show

from monitor.key_table import KeyTable
from monitor.run_catalogue import ListedRun
from monitor.sources.source import SourceError
from monitor.view_names import NAMES, VIEWS
from monitor.views.diagnosis_view import DiagnosisView
from monitor.views.events_view import EventsView
from monitor.views.graph_view import GraphView
from monitor.views.layers_view import LayersView
from monitor.views.overview import Overview
from monitor.widgets.causes_pane import CausesPane
from monitor.widgets.chart_grid import ChartGrid, grid_shape
from monitor.widgets.event_log import EventLog
from monitor.widgets.evidence_pane import EvidencePane
from monitor.widgets.layer_profile import LayerProfile
from monitor.widgets.runs_pane import RunsPane
from monitor.widgets.site_pane import SitePane
from monitor.widgets.status_line import StatusLine
from monitor.widgets.verdict_bands import VerdictBands
from monitor.widgets.view_bar import ViewBar

FAULTY = Script(fault_step=200)


def text(app, kind):
    return app.view.query_one(kind).text


def chart_titles(app):
    panes = app.view.query_one(ChartGrid).panes
    return [pane.data.title for pane in panes if pane.data]


async def test_every_view_has_its_key_and_its_tab():
    async with running(FakeSource(FAULTY), size=(80, 24)) as (app, pilot):
        for view in VIEWS:
            await pilot.press(view.key)
            await settle(pilot)
            assert app.view.view_name == view.name
            assert f"[{view.key} {view.title}]" in app.query_one(ViewBar).text
            assert [v.display for v in app._views.values()].count(True) == 1
        await pilot.press("v")
        assert app.viewing.view == "overview"
        await pilot.press("V")
        assert app.viewing.view == "runs"


async def test_a_tab_can_be_clicked():
    async with running() as (app, pilot):
        await pilot.click(ViewBar, offset=(15, 0))
        await settle(pilot)
        assert app.viewing.view == "diagnosis"


async def test_an_entry_of_a_list_can_be_clicked():
    async with running(FakeSource(FAULTY), size=(204, 60)) as (app, pilot):
        await show(pilot, "events")
        await pilot.click(app.view.query_one(EventLog), offset=(5, 2))
        await settle(pilot)
        assert app.view._chosen == app.shown.events[1]
        await show(pilot, "diagnosis")
        # The chosen one takes lines of its own; the last line in use is the last piece of evidence.
        pane = app.view.query_one(EvidencePane)
        await pilot.click(pane, offset=(5, len(pane._owners)))
        await settle(pilot)
        assert app.view._chosen == pane._owners[-1] > 0


async def test_views_keep_what_was_chosen_in_them():
    async with running(FakeSource(FAULTY), size=(80, 24)) as (app, pilot):
        await show(pilot, "diagnosis")
        await pilot.press("down", "down")
        await show(pilot, "layers")
        await pilot.press("right_square_bracket", "down")
        heatmap = app.viewing.heatmap
        await show(pilot, "graph")
        await pilot.press("up")
        for view in NAMES:
            await show(pilot, view)
        await show(pilot, "diagnosis")
        assert isinstance(app.view, DiagnosisView)
        assert app.view._chosen == 2
        await show(pilot, "layers")
        assert isinstance(app.view, LayersView)
        assert (app.view._row, app.viewing.heatmap) == (1, heatmap)
        await show(pilot, "graph")
        assert isinstance(app.view, GraphView)
        assert app.view._site == "score@2"


@pytest.mark.parametrize("size", [(80, 24), (204, 60)])
async def test_the_diagnosis_over_time_with_causes_and_evidence(size):
    async with running(FakeSource(FAULTY), size=size) as (app, pilot):
        await show(pilot, "diagnosis")
        bands = text(app, VerdictBands)
        for part in ("✓ healthy", "✗ FAULTY", "any fault", "masking", "97 %", "▲"):
            assert part in bands
        causes = text(app, CausesPane)
        for part in ("88 %", "mask application", "layer 2, since step 200", "Try", "Pass the mask",
                     "6 %", "mask generation", "✗"):  # fmt: skip
            assert part in causes
        assert "▸ 31 % of the pairs" in text(app, EvidencePane)


async def test_alternatives_are_told_apart_by_what_was_measured():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "diagnosis")
        causes = text(app, CausesPane)
        assert "6 % " in causes
        assert "✗ against mask/" in causes
        assert "mask/leaked 0.310: fits the first alone" in causes


async def test_evidence_leads_to_its_chart_at_its_step():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "diagnosis")
        await pilot.press("down", "enter")
        await settle(pilot)
        assert app.viewing.view == "metrics"
        assert chart_titles(app) == ["mask/padding_mass"]
        assert app.viewing.steps.cursor == 200
        await pilot.press("escape")
        await settle(pilot)
        assert len(chart_titles(app)) > 1
        await pilot.press("escape")
        assert app.viewing.steps.cursor is None


async def test_a_healthy_diagnosis_has_nothing_to_choose():
    async with running() as (app, pilot):
        await show(pilot, "diagnosis")
        assert "✓ healthy" in text(app, CausesPane)
        await pilot.press("down", "enter")
        assert "no evidence" in app.query_one(StatusLine).text
        assert app.viewing.view == "diagnosis"


async def test_layers_show_one_metric_with_the_values_of_a_step():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "layers")
        title = app.view.query_one("#layers-heat").border_title
        assert title.startswith("mask/leaked · layer × step · ")
        assert "at step 390" in app.view.query_one(LayerProfile).border_title
        assert "0.310" in text(app, LayerProfile)
        await pilot.press("left")
        for _ in range(25):
            await pilot.press("left")
        assert "at step 140" in app.view.query_one(LayerProfile).border_title
        assert "0.310" not in text(app, LayerProfile)
        await pilot.press("right_square_bracket")
        assert not app.view.query_one("#layers-heat").border_title.startswith("mask/leaked")
        await pilot.press("m", *"ffn gr", "enter")
        await settle(pilot)
        assert app.view.query_one("#layers-heat").border_title.startswith("ffn/grad_norm")
        await pilot.press("enter")
        await settle(pilot)
        assert chart_titles(app) == ["ffn/grad_norm"]


async def test_a_site_is_entered_and_left():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "graph")
        assert app.view.query_one(SitePane).border_title == "mask@2", "begins at the suspect"
        shown = text(app, SitePane)
        assert "likely origin of the fault 96 %" in shown
        assert "leaked" in shown
        assert "0.310 ✗" in shown
        await pilot.press("right")
        assert app.view.query_one(SitePane).border_title == "mask@3"
        await pilot.press("up")
        assert app.view.query_one(SitePane).border_title == "score@3"
        await pilot.press("o")
        assert app.view.query_one(SitePane).border_title == "mask@2"
        await pilot.press("enter", "down")
        assert app.view._metric == 1
        await pilot.press("escape")
        assert app.view._metric is None
        await pilot.press("enter", "enter")
        await settle(pilot)
        assert chart_titles(app)[0].startswith("mask/")


async def test_a_site_tells_its_modules_and_its_code():
    import msgspec

    source = FakeSource(FAULTY)
    header = source.records[0]
    sites = tuple(
        msgspec.structs.replace(site, modules=("bert.attention.self",), where="bert.py:139")
        for site in header.anatomy.sites
    )
    anatomy = msgspec.structs.replace(header.anatomy, sites=sites)
    source.records = (msgspec.structs.replace(header, anatomy=anatomy), *source.records[1:])
    async with running(source) as (app, pilot):
        await show(pilot, "graph")
        assert "module bert.attention.self" in text(app, SitePane)
        assert "code   bert.py:139" in text(app, SitePane)


async def test_events_lead_to_their_step():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "events")
        assert isinstance(app.view, EventsView)
        assert "▸" not in text(app, EventLog)
        await pilot.press("up", "up")
        assert app.view.query_one(EventLog).text.splitlines()[1].startswith("▸")
        await pilot.press("enter")
        await settle(pilot)
        assert (app.viewing.view, app.viewing.steps.cursor) == ("metrics", 200)


async def test_an_event_of_a_replay_is_replayed_to():
    replay = FakeReplay(FAULTY)
    async with running(replay) as (app, pilot):
        await show(pilot, "events")
        await pilot.press("up", "up", "enter")
        await settle(pilot)
        assert (app.viewing.view, app.viewing.frozen) == ("metrics", 200)
        assert not replay.position().playing


@pytest.mark.parametrize("wanted", [1, 2, 4, 6, 9, 12])
async def test_as_many_charts_as_wanted(wanted):
    async with running(size=(204, 60)) as (app, pilot):
        await show(pilot, "metrics")
        while app.viewing.grid != wanted:
            await pilot.press("g")
        await settle(pilot)
        assert len(chart_titles(app)) == wanted


def test_charts_stay_legible_however_many_are_wanted():
    for size in ((40, 12), (80, 20), (120, 36), (300, 90)):
        for wanted in range(13):
            columns, rows = grid_shape(*size, wanted)
            assert size[0] // columns >= 20
            assert size[1] // rows >= 4 or rows == 1


async def test_the_chosen_chart_is_enlarged_and_back():
    async with running() as (app, pilot):
        await pilot.press("]", "enter")
        await settle(pilot)
        assert chart_titles(app) == ["training/grad_norm"]
        await pilot.press("enter")
        await settle(pilot)
        assert len(chart_titles(app)) > 4


def listed(path, name):
    return ListedRun("trace", name, name, "Small, 1 kB", 90.0, path=path)


async def test_no_run_says_what_to_do():
    async with running() as (app, pilot):
        await pilot.press("7")
        await settle(pilot, lambda: "probe.attach" in text(app, RunsPane))


async def test_runs_that_cannot_be_listed_say_why():
    def broken():
        raise SourceError("the state directory belongs to another user")

    async with running(find_runs=broken) as (app, pilot):
        await pilot.press("7")
        await settle(pilot, lambda: "belongs to another user" in text(app, RunsPane))


async def test_help_in_the_list_of_runs_tells_of_the_chosen_one(tmp_path):
    runs = (listed(tmp_path / "a.trace", "first"), listed(tmp_path / "b.trace", "second"))
    async with running(find_runs=lambda: runs) as (app, pilot):
        await pilot.press("7")
        await settle(pilot, lambda: "second" in text(app, RunsPane))
        await pilot.press("down", "question_mark")
        shown = "".join(str(app.screen.query_one("#help-text").render()).split())
        assert f"defaultpp-monitorreplay{tmp_path / 'b.trace'}" in shown
        assert "a.trace" not in shown and "crossentropy" not in shown


async def test_another_run_is_opened_in_place_of_this_one(tmp_path):
    from streams import a_run, store

    path = store(tmp_path / "other.trace", a_run())
    torn = tmp_path / "torn.trace"
    torn.write_bytes(b"no trace")
    source = FakeSource(FAULTY)
    found = (listed(torn, "torn"), listed(path, "other"))
    async with running(source, find_runs=lambda: found) as (app, pilot):
        await pilot.press("7")
        await settle(pilot, lambda: "torn" in text(app, RunsPane))
        await pilot.press("enter")
        await settle(pilot, lambda: "torn" in app.query_one(StatusLine).text)
        assert not source.closed.is_set()
        await pilot.press("down", "enter")
        await settle(pilot, lambda: app.run_title == "other.trace" and app.model.frames == 10)
        assert source.closed.is_set()
        assert isinstance(app.view, Overview)
        assert app.is_replay
        assert app.viewing.steps.cursor is None
        assert [key.action for key in KeyTable().here(True, "overview") if key.keys == "space"]


async def test_recorded_runs_are_found(tmp_path, monkeypatch):
    from streams import a_run, store

    from monitor.run_catalogue import discover

    tmp_path.chmod(0o700)
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path))
    traces = tmp_path / "traces"
    traces.mkdir(mode=0o700)
    store(traces / "20260101-a.trace", a_run())
    Path(traces / "20260102-b.trace").write_bytes(b"no trace")
    found = {run.run: run for run in discover()}
    assert found["20260101-a"].name == "small"
    assert found["20260101-a"].detail.startswith("Small, ")
    assert "unreadable" in found["20260102-b"].detail


@pytest.mark.parametrize(
    ("source", "view", "key", "told"),
    [
        (FakeReplay, "overview", "p", "p works on a live run, not on a replay"),
        (FakeSource, "overview", "greater_than_sign", "> works on a replay, not on a live run"),
        (FakeSource, "graph", "l", "l works in Overview, Metrics"),
        (FakeSource, "events", "plus", "+ works in Overview, Diagnosis, Layers, Metrics, Runs"),
        (FakeSource, "overview", "l", ""),
        (FakeSource, "overview", "f12", ""),
    ],
)
async def test_a_key_that_does_nothing_here_says_where_it_works(source, view, key, told):
    async with running(source(FAULTY), size=(80, 24)) as (app, pilot):
        app.action_show_view(view)
        await pilot.press(key)
        assert app.message == told
        assert KeyTable().elsewhere(key, app.is_replay, view) == told
        if told:
            assert told in app.query_one(StatusLine).text


async def test_over_the_help_a_key_says_nothing():
    async with running(FakeReplay(FAULTY), size=(80, 24)) as (app, pilot):
        app.action_help()
        await pilot.pause()
        await pilot.press("p")
        assert app.message == ""
