"""Verdicts of runs that were watched before."""

import pytest
from screen_driver import FakeReplay, FakeSource, Script, running, settle

from diagnoser.diagnosis import Diagnosis
from monitor import remembered as kept
from monitor.remembered import remember, remembered
from monitor.run_catalogue import ListedRun, discover
from monitor.widgets.runs_pane import RunsPane
from probe.directories import traces_dir


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "cache" / "defaultpp-monitor"


def told(run="r1", verdict="faulty", step=300, **more):
    return Diagnosis(run=run, frames=9, last_step=step, verdict=verdict, probability=0.99, **more)


def test_the_newest_verdict_of_a_run_is_kept():
    remember(told(step=100))
    remember(told("r2", "healthy"))
    remember(told(category="masking", root_cause="mask_generation"))
    known = remembered()
    assert list(known) == ["r2", "r1"]
    assert (known["r1"].step, known["r1"].category) == (300, "masking")
    assert known["r2"].verdict == "healthy"


def test_a_run_without_a_verdict_leaves_the_one_it_had():
    remember(told())
    remember(told(verdict="insufficient", step=1))
    remember(None)
    assert remembered()["r1"].step == 300


def test_those_watched_longest_ago_go(monkeypatch):
    monkeypatch.setattr(kept, "MOST", 3)
    for number in range(5):
        remember(told(f"r{number}"))
    assert list(remembered()) == ["r2", "r3", "r4"]


@pytest.mark.parametrize("content", [b"\x80", b"{}\n", b'{"run": 1', b"[1, 2]\n"])
def test_a_spoilt_file_is_as_none_and_is_written_anew(places, content):
    places.mkdir(parents=True)
    (places / "verdicts.jsonl").write_bytes(content)
    assert remembered() == {}
    remember(told())
    assert list(remembered()) == ["r1"]


def test_where_nothing_can_be_written_nothing_is_kept(places):
    places.parent.mkdir(parents=True)
    places.write_bytes(b"in the way")
    remember(told())
    assert remembered() == {}


def test_recorded_runs_are_listed_with_what_they_were_told_to_be():
    (traces_dir() / "r1.trace").write_bytes(b"")
    (traces_dir() / "r2.trace").write_bytes(b"")
    remember(told())
    assert {run.run: run.verdict and run.verdict.verdict for run in discover()} == {
        "r1": "faulty",
        "r2": None,
    }


async def test_a_run_is_left_for_another_one_too():
    async with running(FakeReplay(Script(fault_step=200)), remember=remember) as (app, _):
        watched = app.diagnosis.diagnosis
        app.switch_source(FakeSource(Script(steps=20)))
        assert remembered()[watched.run].step == watched.last_step


async def test_a_run_that_is_left_is_remembered_and_shown(tmp_path):
    source = FakeReplay(Script(fault_step=200))
    async with running(source, size=(80, 24), remember=remember) as (app, _):
        watched = app.diagnosis.diagnosis
    assert watched is not None and remembered()[watched.run].step == watched.last_step
    listed = ListedRun(
        "trace", "other", "r9", "Bert", 1.0, path=tmp_path / "t", verdict=remembered()[watched.run]
    )
    async with running(size=(120, 40), find_runs=lambda: (listed,)) as (app, pilot):
        app.action_show_view("runs")
        await settle(pilot, lambda: "FAULTY" in app.view.query_one(RunsPane).text)
        line = app.view.query_one(RunsPane).text
        assert f"at step {watched.last_step}" in line
