"""What is typed or opened by mistake is answered with a sentence that says what it was."""

import msgspec
import pytest
from screen_driver import FakeSource, Script, running, settle, show
from streams import a_run, event, frame, header, store

from monitor.run_catalogue import ListedRun, discover, open_named
from monitor.sources.replay import ReplaySource
from monitor.sources.source import SourceError
from monitor.widgets.prompt import Prompt
from monitor.widgets.status_line import StatusLine
from monitor.widgets.text_pane import TextPane
from probe.registry import RunEntry
from probe.trace import TraceError, TraceReader


async def test_a_prompt_is_typed_on_at_its_end():
    async with running() as (app, pilot):
        await pilot.press("B", "escape", "y", "X")
        assert app.query_one(Prompt).query_one("#prompt-input").value == "overview-399.svgX"
        await pilot.press("escape", "B", "X")
        assert app.query_one(Prompt).query_one("#prompt-input").value == "faultyX"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}/no.trace", "no such file"),
        ("no.trace", "no such file"),
        ("{}/", "is a directory, not a trace: name a file in it"),
    ],
)
def test_a_path_that_is_no_trace_is_told_as_a_path(tmp_path, text, words):
    with pytest.raises(SourceError, match=words) as told:
        open_named(text.format(tmp_path))
    assert "no live run is called" not in str(told.value)


async def test_the_run_watched_is_not_opened_again():
    run = ListedRun("live", "bert-wikitext", "20260101-000000-bert", "pid 1", 1.0)
    async with running(find_runs=lambda: (run,)) as (app, pilot):
        await show(pilot, "runs")
        await app.workers.wait_for_complete()
        await pilot.press("enter")
        await app.workers.wait_for_complete()
        assert "this run is on screen already" in app.query_one(StatusLine).text
        assert app.viewing.view == "runs"


def test_what_a_live_run_writes_is_not_listed_once_more(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path))
    traces = tmp_path / "traces"
    traces.mkdir(mode=0o700)
    path, _ = (store(traces / f"{name}.trace", a_run()) for name in ("live", "earlier"))
    entry = RunEntry(
        run="live",
        name="a",
        created=0.0,
        host="h",
        boot_id="b",
        pid=1,
        started="",
        interpreter="python",
        trace=str(path),
    )
    live = ListedRun("live", "a", "live", "pid 1", 1.0, entry=entry)
    monkeypatch.setattr("monitor.run_catalogue._live", lambda now: [live])
    assert [run.run for run in discover()] == ["live", "earlier"]


def of_another_version(tmp_path):
    other = msgspec.structs.replace(header(1), schema=9)
    return store(tmp_path / "other.trace", [event(0, 0), other, frame(2, 0), frame(3, 10)])


def test_a_header_of_another_version_is_told_as_such(tmp_path):
    path = of_another_version(tmp_path)
    with (
        TraceReader(path) as reader,
        pytest.raises(TraceError, match="schema 9 was written by another"),
    ):
        list(reader)


async def replayed(pilot, path):
    """Watch a trace until the monitor has said something about it."""
    app = pilot.app
    app.switch_source(ReplaySource(path, playing=True, speed=1e6))
    for _ in range(2000):
        await pilot.pause(0.005)
        app.tick()
        if app.query_one(StatusLine).text:
            break
    return app.query_one(StatusLine).text


async def test_what_is_wrong_with_a_trace_is_told_on_the_screen(tmp_path):
    async with running(FakeSource(Script(steps=60))) as (app, pilot):
        told = await replayed(pilot, of_another_version(tmp_path))
        # The line breaks where the path's length makes it.
        assert "schema 9 was written by another version" in " ".join(told.split())
        torn = store(tmp_path / "torn.trace", a_run(ended=False))
        assert "The trace stops here without an end" in await replayed(pilot, torn)
        assert app.model.events[-1].text.startswith("The trace stops here")
        await pilot.press("left")
        app.tick()
        assert not app.query_one(StatusLine).text, "once"


async def test_a_trace_that_vanished_is_a_line(tmp_path):
    gone = ListedRun("trace", "gone", "gone", "Bert", 1.0, path=tmp_path / "gone.trace")
    async with running(find_runs=lambda: (gone,)) as (app, pilot):
        await show(pilot, "runs")
        await app.workers.wait_for_complete()
        for key in ("enter", "c", "b"):
            await pilot.press(key)
            await app.workers.wait_for_complete()
            await pilot.pause()
            assert "no such file" in app.query_one(StatusLine).text
        assert not app.comparison


async def test_what_would_be_healthy_is_not_cut_off():
    async with running(size=(80, 24)) as (app, pilot):
        await show(pilot, "layers")
        app.viewing.heatmap = "attention/entropy"
        await settle(pilot)
        metric = app.model.groups["attention/entropy"].metric
        line = app.view.query_one(TextPane).text
        assert line.rstrip().endswith(f"healthy: {metric.healthy}")
        assert "…" in line
