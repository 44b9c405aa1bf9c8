"""Every run compared has a verdict of its own, or the reason why it has none."""

import threading
from typing import ClassVar

import msgspec
import pytest
from screen_driver import FakeSource, Script, running, settle, show
from scripted_engine import ScriptedEngine
from streams import store

from diagnoser.crashes import Crash
from diagnoser.diagnosis import Diagnosis
from monitor.charts.line import text_of
from monitor.comparison import MOST_DIAGNOSED, Comparison
from monitor.diagnosing import DiagnosisState
from monitor.model_state import pack, taken
from monitor.run_catalogue import ListedRun
from monitor.run_model import RunModel
from monitor.short_verdict import short_verdict
from monitor.sources.fake import records
from monitor.sources.source import Batch
from monitor.widgets.comparison_pane import Compared, ComparisonPane, table
from monitor.widgets.runs_pane import RunsPane

FAULTY = "✗ FAULTY masking › mask application"


def named(run, script=None, header_only=False):
    found = list(records(script or Script(steps=100)))
    found[0] = msgspec.structs.replace(found[0], run=run, name=run)
    return found[:1] if header_only else found


@pytest.fixture
def listed(tmp_path):
    def made(*runs):
        paths = {run: store(tmp_path / f"{run}.trace", named(run, script)) for run, script in runs}
        return lambda: tuple(
            ListedRun("trace", run, run, "Bert", 1.0, path=path) for run, path in paths.items()
        )

    return made


async def compare(app, pilot, count):
    """The first runs of the list, each until its verdict stands."""
    await show(pilot, "runs")
    await app.workers.wait_for_complete()
    for number in range(count):
        await pilot.press("c")
        await settle(pilot, lambda number=number: len(app.comparison.runs) == number + 1)
        await pilot.press("down")
    await settle(pilot, lambda: all(map(at_its_end, app.comparison.runs)))


def at_its_end(other):
    steps = other.model.sampled_steps()
    found = other.diagnosis.diagnosis
    return len(steps) and (
        other.diagnosing is None
        or other.diagnosis.phase == "failed"
        or (found is not None and found.last_step == steps[-1])
    )


async def test_compared_runs_have_their_own_verdicts(listed):
    find = listed(("bad", Script(steps=200, fault_step=100)), ("good", Script(steps=120, seed=3)))
    async with running(FakeSource(Script(steps=60)), find_runs=find) as (app, pilot):
        await compare(app, pilot, 2)
        watched, bad, good = app.view.query_one(ComparisonPane).text.splitlines()[1:]
        assert "✓ healthy" in watched
        assert bad.startswith("B  bad")
        assert FAULTY in bad
        assert good.startswith("C  good")
        assert "✓ healthy" in good
        # The chosen one's in full, where there is room for few words in the table.
        assert "verdict  ✓ healthy" in app.view.query_one(RunsPane).text
        # The same kind of engine as the watched run has, one for each.
        engines = [other.diagnosing._engine for other in app.comparison.runs]
        assert {type(engine) for engine in engines} == {ScriptedEngine}
        assert len({id(engine) for engine in [*engines, app.diagnosing._engine]}) == 3


async def test_only_a_few_are_diagnosed_and_the_others_say_so(listed):
    find = listed(*((f"run{n}", Script(steps=60)) for n in range(MOST_DIAGNOSED + 1)))
    async with running(FakeSource(Script(steps=60)), size=(204, 60), find_runs=find) as (
        app,
        pilot,
    ):
        await compare(app, pilot, MOST_DIAGNOSED + 1)
        lines = app.view.query_one(ComparisonPane).text.splitlines()[2:]
        assert ["✓ healthy" in line for line in lines] == [True, True, True, False]
        assert "no verdict: 3 compared runs are diagnosed" in lines[-1]
        assert "take one of them away (c)" in " ".join(app.view.query_one(RunsPane).text.split())
        # As it says: one away, the last one once more.
        app.close_parts(app.comparison.remove("run0"))
        app.close_parts(app.comparison.remove("run3"))
        await pilot.press("c")
        await settle(pilot, lambda: len(app.comparison.runs) == MOST_DIAGNOSED)
        await settle(pilot, lambda: all(map(at_its_end, app.comparison.runs)))
        assert all(other.diagnosing for other in app.comparison.runs)


async def test_an_engine_that_fails_is_the_reason(listed, monkeypatch):
    def refusing(header):
        if header.run == "old":
            raise ValueError("its metrics are those of another version: record it anew")
        return ScriptedEngine(header)

    monkeypatch.setattr("screen_driver.ScriptedEngine", refusing)
    find = listed(("old", Script(steps=60)))
    async with running(FakeSource(Script(steps=60)), find_runs=find) as (app, pilot):
        await compare(app, pilot, 1)
        told = " ".join(app.view.query_one(RunsPane).text.split())
        assert "no verdict: its metrics are those of another version: record it anew" in told
        assert app.diagnosis.diagnosis.verdict == "healthy"


class Blocking(ScriptedEngine):
    """Goes on when it is told to, and tells in which threads it was."""

    allowed = threading.Event()
    threads: ClassVar = set()

    def update(self, frame):
        Blocking.threads.add(threading.current_thread())
        assert Blocking.allowed.wait(30)
        return super().update(frame)


def test_they_take_turns_behind_the_screen():
    Blocking.allowed.clear()
    Blocking.threads.clear()
    news = threading.Event()
    comparison = Comparison(news.set)
    runs = [
        comparison.add(run, run, FakeSource(Script(steps=60, seed=n)), Blocking)
        for n, run in enumerate(("one", "two"))
    ]

    def until(condition):
        while not condition():
            assert news.wait(30)
            news.clear()
            comparison.drain()
            comparison.take_turns(free=True)

    assert [run.diagnosis.phase for run in runs] == ["loading", "loading"]  # from the first moment
    try:
        comparison.take_turns(free=False)
        while not all(run.reader.waiting for run in runs):
            assert news.wait(30)
            news.clear()
        comparison.drain()
        comparison.take_turns(free=False)
        assert not Blocking.threads  # the run watched comes first
        comparison.take_turns(free=True)
        Blocking.allowed.set()
        until(lambda: runs[0].diagnosing.idle)
        until(lambda: runs[1].diagnosing.idle)
        assert [run.diagnosis.diagnosis.frames for run in runs] == [6, 6]
        assert threading.main_thread() not in Blocking.threads
    finally:
        Blocking.allowed.set()
        for part in comparison.clear():
            part.stop()


def test_one_waits_while_another_is_gone_over():
    Blocking.allowed.clear()
    Blocking.threads.clear()
    comparison = Comparison()
    runs = [
        comparison.add(run, run, FakeSource(Script(steps=60)), Blocking) for run in ("one", "two")
    ]
    try:
        while any(run.diagnosing.idle for run in runs):
            comparison.drain()
        comparison.take_turns(free=True)
        assert [run.diagnosing._held for run in runs] == [False, True]
    finally:
        Blocking.allowed.set()
        for part in comparison.clear():
            part.stop()


def model_of(found, link="replay"):
    model = RunModel()
    model.take(Batch(records=tuple(found), link=link))
    return model


def said(last_step=390, **fields):
    usual = {"verdict": "healthy", "probability": 0.1, "frames": 40}
    return Diagnosis(run="x", last_step=last_step, **(usual | fields))


def test_a_verdict_in_a_few_words():
    model = model_of(records(Script()))
    faulty = said(verdict="faulty", category="masking", root_cause="mask_application")
    words = {
        "✓ healthy": DiagnosisState("ready", said()),
        "◌ not enough evidence yet, 1 frame": DiagnosisState(
            "ready", said(verdict="insufficient", frames=1)
        ),
        FAULTY: DiagnosisState("ready", faulty),
        f"{FAULTY} (so far: step 100)": DiagnosisState(
            "ready", msgspec.structs.replace(faulty, last_step=100)
        ),
        "✗ FAULTY no cause stands out": DiagnosisState("ready", said(verdict="faulty")),
        "✓ healthy, died at step 391": DiagnosisState(
            "ready",
            said(),
            crash=Crash(step=391, text="no memory", category=None, heuristic=None, reason=""),
        ),
        "no verdict: weights are missing": DiagnosisState("failed", said(), "weights are missing"),
        "no verdict yet: diagnosis to come": DiagnosisState("loading"),
    }
    assert [short_verdict(state, model)[0] for state in words.values()] == list(words)


def test_where_nothing_was_read_the_reason_is_told():
    ready = DiagnosisState("ready")
    header = records(Script())[0]
    assert short_verdict(ready, model_of([header]))[0] == "no verdict yet: no frame was read"
    lost = model_of([header], link="lost")
    assert short_verdict(ready, lost)[0] == "no verdict: no frame was measured"
    assert "its model was never seen" in short_verdict(ready, model_of([], link="lost"))[0]


@pytest.mark.parametrize("width", [30, 78, 118, 202])
def test_the_table_keeps_to_its_width_and_names_the_cause_first(width):
    rows = [Compared("B", "a-run-of-some-name", 180, 2.31, verdict=(FAULTY, "bad"), baseline=True)]
    _, line = table(rows, width)
    assert len(text_of(line)) == width
    if width >= 78:
        assert FAULTY in text_of(line)
        assert "baseline" in text_of(line)


def test_a_kept_overview_stands_for_what_was_read_before():
    everything = records(Script(steps=60))
    kept = pack(model_of(everything))
    model = taken(RunModel(), Batch(link="replay", overview=kept))
    assert model.frames == 6
    # The same records once more, for the diagnosis alone.
    assert taken(model, Batch(everything, link="replay", known=True)).frames == 6
