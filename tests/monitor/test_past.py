"""A live run looked at as it was, and charts over wall-clock time."""

import threading

import numpy as np
import pytest
from screen_driver import FakeReplay, FakeSource, GatedSource, Script, running, settle, show
from scripted_engine import ScriptedEngine
from streams import a_run, store

from diagnoser.diagnosis import Diagnosis
from monitor.charts.duration import duration
from monitor.charts.line import text_of
from monitor.charts.line_chart import ChartData, draw
from monitor.charts.time_axis import over_time
from monitor.diagnosis_history import DiagnosisHistory
from monitor.envelope import Envelope
from monitor.run_model import StepMark
from monitor.sources.replay import ReplaySource
from monitor.step_clock import StepClock
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.diagnosis_pane import DiagnosisPane
from monitor.widgets.event_log import EventLog
from monitor.widgets.run_header import RunHeader
from monitor.widgets.scrub_bar import ScrubBar, ScrubData, rail
from monitor.widgets.status_line import StatusLine
from probe.schema import encode
from probe.trace import TraceWriter

FAULTY = Script(fault_step=200)


def said(step, verdict="healthy"):
    return Diagnosis(run="r", frames=1, last_step=step, verdict=verdict, probability=0.5)


def test_the_past_of_the_diagnosis_is_bounded_and_keeps_its_changes():
    history = DiagnosisHistory(capacity=16)
    assert history.at(5) is None
    for step in range(1000):
        history.add(said(step, "faulty" if step >= 501 else "healthy"))
        assert len(history._held) < 16
    assert history.at(10_000).last_step == 999
    assert history.at(400).verdict == "healthy"
    assert history.at(700).verdict == "faulty"
    assert abs(history.at(700).last_step - 700) < 200


async def test_a_live_run_is_gone_back_through_while_data_keep_arriving():
    source = GatedSource(FAULTY, allowed=70)
    async with running(source) as (app, pilot):
        assert "FAULTY" in app.query_one(DiagnosisPane).text
        assert not app.query_one(ScrubBar).display
        await pilot.press("comma", "comma")
        newest = app.model.sampled_steps()
        assert app.viewing.frozen == newest[-3]
        bar = app.query_one(ScrubBar)
        assert bar.display
        assert "steps back" in bar.text
        await pilot.press("j", *"150", "enter")
        assert app.viewing.frozen == 150
        assert "FAULTY" not in app.query_one(DiagnosisPane).text
        assert "healthy" in app.query_one(DiagnosisPane).text
        assert "fault" not in app.query_one(EventLog).text
        assert "step 150" in app.query_one(RunHeader).text
        chart = app.query_one(ChartGrid).panes[0].data
        assert chart.curves[0].first[-1] <= 150
        source.allowed = 1000
        await settle(pilot, lambda: app.model.frames == 40)
        assert app.viewing.frozen == 150
        assert "150 of 399" in bar.text
        await pilot.press("f")
        assert app.viewing.frozen == app.known_flag == 200
        assert "FAULTY" in app.query_one(DiagnosisPane).text
        await pilot.press("full_stop")
        assert app.viewing.frozen == 210
        await pilot.press("space")
        assert app.viewing.frozen is None
        assert not app.query_one(ScrubBar).display


async def test_a_replay_is_read_on_to_its_first_flag():
    replay = FakeReplay(FAULTY)
    replay.jump(50)
    async with running(replay) as (app, pilot):
        assert app.known_flag is None
        await pilot.press("f")
        await settle(pilot, lambda: app.viewing.frozen is not None)
        assert app.viewing.frozen == app.known_flag == 200
        assert "step 200 of 390" in app.query_one(RunHeader).text
        assert "FAULTY" in app.query_one(DiagnosisPane).text
        assert not app.query_one(StatusLine).text


async def test_a_replay_without_a_flag_says_so_at_its_end():
    replay = FakeReplay(Script())
    replay.jump(50)
    async with running(replay) as (app, pilot):
        replay.play(True)
        await pilot.press("f")
        await settle(pilot, lambda: not app.wants_flag)
        assert replay.position().at_end and not replay.position().playing
        assert "no step of this trace is flagged" in app.query_one(StatusLine).text


@pytest.mark.parametrize("keys", [("comma",), ("space",), ("j", "7", "0", "enter")])
async def test_whoever_goes_elsewhere_is_not_taken_to_the_first_flag(keys, monkeypatch):
    replay, told = FakeReplay(FAULTY), threading.Event()
    replay.jump(100)
    async with running(replay) as (app, pilot):
        update = ScriptedEngine.update
        monkeypatch.setattr(
            ScriptedEngine, "update", lambda engine, frame: told.wait() and update(engine, frame)
        )
        await pilot.press("f")
        assert "reading on" in app.query_one(StatusLine).text
        await pilot.press(*keys)
        told.set()
        await settle(pilot, lambda: app.known_flag == 200)
        assert app.viewing.frozen != 200
        assert not app.wants_flag


async def test_a_click_on_the_rail_goes_there():
    async with running(FakeReplay(FAULTY)) as (app, pilot):
        bar = app.query_one(ScrubBar)
        assert bar.display
        _, start, room = rail(bar._data, bar.content_size.width)
        await pilot.click(bar, offset=(1 + start + room // 2, 0))
        assert 180 <= app.viewing.frozen <= 210
        assert f"step {app.viewing.frozen} of 390" in app.query_one(RunHeader).text


@pytest.mark.parametrize("width", [120, 30, 12, 3])
def test_the_rail_fits_and_marks_what_happened(width):
    data = ScrubData(50, (0, 100), "paused", "‖", (StepMark(20, "fault"),))
    line, _, room = rail(data, width)
    assert room <= width
    if width == 120:
        text = text_of(line)
        assert len(text) == width
        assert "▲" in text
        assert "50 of 100" in text


def test_a_trace_looked_at_from_its_end_is_followed(tmp_path):
    everything = a_run(frames=20, ended=False)
    path = store(tmp_path / "t.trace", everything[:11])
    now = [0.0]
    source = ReplaySource(path, playing=False, clock=lambda: now[0])
    source.jump(10**9)
    steps = []

    def read():
        now[0] += 1.0
        steps.extend(r.step for r in source.read(timeout=0.0).records if hasattr(r, "step"))

    read()
    read()
    assert steps == list(range(0, 100, 10))
    with path.open("ab") as file:
        rest = store(tmp_path / "rest.trace", everything).read_bytes()
        file.write(rest[path.stat().st_size :])
    read()
    read()
    assert steps == list(range(0, 200, 10))
    # Who steps back stays there.
    source.step(-5)
    read()
    assert source.position().step == 140
    writer = TraceWriter(tmp_path / "more.trace")
    for record in [*everything, everything[-1]]:
        writer.append(encode(record))
    writer.close()
    with path.open("ab") as file:
        file.write((tmp_path / "more.trace").read_bytes()[path.stat().st_size :])
    read()
    read()
    assert source.position().step == 140
    source.close()


def test_a_clock_goes_there_and_back_and_stays_bounded():
    clock = StepClock(capacity=8)
    assert clock.milliseconds([5]).tolist() == [0]
    for step in range(0, 1000, 10):
        clock.add(step, 100.0 + step * 0.5 + (3600 if step >= 500 else 0))
    assert len(clock) <= 8
    assert clock.began == 100.0
    assert clock.milliseconds([0]).tolist() == [0]
    late = int(clock.milliseconds([900])[0])
    assert late > 3_600_000
    assert clock.step_at(late) == pytest.approx(900, abs=150)
    clock.add(5, 0.0)
    clock.add(2000, float("nan"))
    clock.add(2000, 0.0)  # a clock that was set back
    assert np.all(np.diff(clock.milliseconds(np.arange(0, 2100, 50))) >= 0)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0.0 s"), (42_500, "42.5 s"), (187_000, "3:07"), (7_387_000, "2:03:07"),
     (353_000_000, "4 d 02:03"), (-5, "0.0 s")],
)  # fmt: skip
def test_durations_are_short(milliseconds, text):
    assert duration(milliseconds) == text


def test_over_time_a_pause_is_as_wide_as_it_was_long():
    envelope = Envelope(1, 64)
    envelope.extend(np.arange(0, 40, 10), np.ones((4, 1), np.float32))
    clock = StepClock()
    for step, time in ((0, 0.0), (10, 1.0), (20, 9.0), (30, 10.0)):
        clock.add(step, time)
    data = ChartData("a", (envelope.curve(0),), (0, 30), marks=(StepMark(20, "fault"),), cursor=10)
    found = over_time(data, clock)
    assert found.span == (0, 10_000)
    assert found.curves[0].first.tolist() == [0, 1000, 9000, 10_000]
    assert found.marks[0].step == 9000
    assert found.cursor == 1000
    assert found.step_of(9000) == 20
    lines = [text_of(line) for line in draw(found, 60, 10)]
    assert "10.0 s" in lines[-1]
    assert "1.0 s" in lines[-1]
    assert over_time(data, StepClock()) is data


async def test_t_changes_the_axis_and_a_click_still_finds_its_step():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await show(pilot, "metrics")
        pane = app.view.query_one(ChartGrid).panes[0]
        await pilot.press("t")
        assert pane.data.span[1] == pytest.approx(399 / 12.5 * 1000, rel=0.01)
        width = pane.content_size.width
        await pilot.click(pane, offset=(width // 2, 3))
        middle = app.viewing.steps.cursor
        await pilot.press("t")
        assert pane.data.step_of is None
        assert 150 <= middle <= 250


def test_a_healthy_range_is_shaded_or_dotted():
    envelope = Envelope(1, 64)
    envelope.extend(np.arange(0, 40, 10), np.array([[0.0], [1], [2], [4]], np.float32))
    data = ChartData("a", (envelope.curve(0),), (0, 30), healthy=(0.0, 1.0))
    shaded = draw(data, 60, 12)
    banded = [any("on band" in role for _, role in line) for line in shaded]
    assert any(banded)
    assert not banded[1]  # the top is outside
    plain = draw(data, 60, 12, ascii_only=True, plain=True)
    assert not any("on band" in role for line in plain for _, role in line)
    assert any("·" in text_of(line) for line in plain)
    beyond = draw(ChartData("a", data.curves, (0, 30), healthy=(5.0, 9.0)), 60, 12)
    assert not any("on band" in role for line in beyond for _, role in line)
