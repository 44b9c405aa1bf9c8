"""Titles of panes as they are, lists that tell what there is room for, the footer's pairs."""

from screen_driver import FakeSource, Script, running, show

from monitor.key_table import remapped
from monitor.keys import KEYS
from monitor.run_catalogue import ListedRun
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.event_log import EventLog
from monitor.widgets.evidence_pane import EvidencePane
from monitor.widgets.key_footer import KeyFooter, footer_line
from monitor.widgets.pane_title import title_text
from monitor.widgets.runs_pane import RunsPane

FAULTY = Script(fault_step=200)
LONG = "a sentence that is far longer than the line it would have to stand in " * 2


async def test_brackets_of_a_filter_are_no_markup():
    async with running() as (app, pilot):
        await pilot.press("slash", *"[en]")
        grid = app.view.query_one(ChartGrid)
        assert title_text(grid).endswith("filter [en]")
        await pilot.press(*"[/b]")
        assert title_text(grid).endswith("filter [en][/b]")
        await pilot.press(*"(")
        assert "not a regular expression" in title_text(grid)


async def test_titles_are_ascii_where_that_is_wanted():
    async with running(FakeSource(FAULTY), ascii=True, size=(120, 40)) as (app, pilot):
        for view in ("overview", "diagnosis", "layers", "metrics", "events", "runs"):
            await show(pilot, view)
            titles = [title_text(pane) for pane in app.view.panes]
            assert any(titles)
            assert all(title.isascii() for title in titles), titles


async def test_a_title_that_stays_draws_nothing_again():
    async with running() as (app, _):
        grid = app.view.query_one(ChartGrid)
        drawn = []
        grid.refresh = lambda *regions, **options: drawn.append(regions)
        app.draw()
        assert not drawn


async def test_the_log_tells_long_events_in_full():
    async with running(size=(80, 40)) as (app, pilot):
        await show(pilot, "events")
        log = app.view.query_one(EventLog)
        app.model.note(LONG)
        app.draw()
        assert " ".join(log.text.split()).count("it would have to stand in") == 2
        for _ in range(60):
            app.model.note(LONG)
        app.draw()
        assert "it would have to stand in" not in log.text, "a line each"
        await pilot.press("up", "up")
        assert " ".join(log.text.split()).count("it would have to stand in") == 2, "the chosen one"
        at = next(y for y, line in enumerate(log.text.splitlines()) if line.startswith("▸"))
        await pilot.click(log, offset=(30, at - 1))  # below the border
        assert app.view._chosen is app.shown.events[-4], "two before the last but one"


async def test_all_evidence_is_told_in_full_where_there_is_room():
    async with running(FakeSource(FAULTY), size=(120, 60)) as (app, pilot):
        await show(pilot, "diagnosis")
        assert "…" not in app.view.query_one(EvidencePane).text


async def test_the_runs_tell_where_the_chosen_one_is(tmp_path):
    path = tmp_path / "one.trace"
    listed = ListedRun("trace", "one", "20260101-one", "Small, 1 kB", 60.0, path=path)
    async with running(find_runs=lambda: (listed,), size=(160, 40)) as (app, pilot):
        await show(pilot, "runs")
        await app.workers.wait_for_complete()
        app.draw()
        lines = app.view.query_one(RunsPane).text.splitlines()
        assert lines[0].split() == ["name", "run", "when", "what"]
        assert str(path) in "\n".join(lines)
        assert "opens one that is not listed" in lines[-1]


def test_the_footer_shows_a_key_with_its_opposite():
    here = [key for key in KEYS if not key.views or "graph" in key.views]
    told = "".join(text for text, _ in footer_line(here, {}, 300))
    assert "←→ Layer" in told
    assert "↑↓ Component" in told
    table, complaints = remapped({"past.step-back": "f2"})
    assert not complaints
    told = "".join(text for text, _ in footer_line(table.here(True, "events"), {}, 300))
    assert "f2/. Frame" in told


def test_every_pair_is_a_command_of_the_same_views():
    for key in KEYS:
        if key.pair:
            assert any(k.action == key.pair and k.views == key.views for k in KEYS), key.id


async def test_the_footer_says_what_enter_would_do():
    async with running(FakeSource(FAULTY), size=(160, 40)) as (app, pilot):
        footer = app.query_one(KeyFooter)
        await show(pilot, "metrics")
        assert "Enter Enlarge" in footer.text
        await pilot.press("enter")
        assert "Enter All charts" in footer.text
        await show(pilot, "graph")
        assert "Enter Its metrics" in footer.text
        await pilot.press("enter")
        assert "Enter Its chart" in footer.text
