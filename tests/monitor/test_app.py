import subprocess
import sys
import threading

import pytest
from screen_driver import (
    FakeReplay,
    FakeSource,
    GatedSource,
    Script,
    app_for,
    running,
    settle,
    show,
)

from monitor.app import MonitorApp
from monitor.charts.heatmap_pane import HeatmapPane
from monitor.key_table import KeyTable
from monitor.keys import KEYS
from monitor.sources.source import Batch
from monitor.view_names import NAMES
from monitor.widgets.chart_grid import ChartGrid
from monitor.widgets.diagnosis_pane import DiagnosisPane
from monitor.widgets.event_log import EventLog
from monitor.widgets.graph_pane import GraphPane
from monitor.widgets.help_screen import HelpScreen
from monitor.widgets.key_footer import KeyFooter
from monitor.widgets.line_pane import LinePane
from monitor.widgets.metric_picker import MetricPicker
from monitor.widgets.prompt import Prompt
from monitor.widgets.run_header import RunHeader
from monitor.widgets.status_line import StatusLine

FAULTY = Script(fault_step=200)


def text(app, kind):
    return app.query_one(kind).text


def titles(app):
    return [pane.data.title if pane.data else None for pane in app.query_one(ChartGrid).panes]


def test_the_first_screen_loads_no_torch():
    code = (
        "import sys, monitor.app; "
        "print([m for m in ('torch', 'torch_geometric', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


async def test_a_healthy_run():
    async with running() as (app, _):
        header = text(app, RunHeader)
        for part in (
            "bert-wikitext", "BertForMaskedLM", "4 layers × 128 × 4 heads", "● live", "▶ training",
            "step 399", "12.5 steps/s", "loss 2.2", "probe costs 1.3 %",
        ):  # fmt: skip
            assert part in header
        assert "✓ healthy" in text(app, DiagnosisPane)
        assert titles(app)[:2] == ["training/loss", "training/grad_norm"]
        assert "attention/entropy" in app.query_one(HeatmapPane).border_title
        assert "▶" not in text(app, GraphPane)
        assert "attached" in text(app, EventLog)


async def test_a_faulty_run():
    async with running(FakeSource(FAULTY)) as (app, _):
        assert "✗ FAULTY" in text(app, DiagnosisPane)
        assert "▶9" in text(app, GraphPane)
        assert titles(app) == ["training/loss", "mask/leaked"]
        assert "mask/leaked" in app.query_one(HeatmapPane).border_title
        log = text(app, EventLog)
        assert "▲ fault" in log
        assert "◆ flagged   faulty: masking/mask_application" in log
        assert "▲" in app.query_one(ChartGrid).panes[0].text


async def test_a_lost_run_stays_on_screen_and_says_why():
    source = FakeSource(FAULTY, last="lost", text="The process is gone; what was read stays.")
    async with running(source) as (app, _):
        assert "✗ lost" in text(app, RunHeader)
        assert "▶ training" not in text(app, RunHeader)
        assert text(app, StatusLine).strip() == "The process is gone; what was read stays."
        assert "lost      The process is gone" in text(app, EventLog)
        assert "FAULTY" in text(app, DiagnosisPane)
        assert app.query_one(ChartGrid).panes[0].data.curves[0].latest[-1] > 0


async def test_diagnosis_loads_behind_the_first_screen():
    gate = threading.Event()

    def slow(header):
        assert gate.wait(30)
        raise RuntimeError("the weights do not fit this version: install the package again")

    app = MonitorApp(FakeSource(Script()), engine_factory=slow)
    async with app.run_test(size=(120, 40)) as pilot:
        for _ in range(500):
            await pilot.pause(0.005)
            app.tick()
            if app.model.frames == 40:
                break
        assert "diagnosis loading" in text(app, DiagnosisPane)
        assert titles(app)[0] == "training/loss"
        gate.set()
        for _ in range(2000):
            await pilot.pause(0.005)
            app.tick()
            if app.diagnosis.phase == "failed":
                break
        assert "diagnosis stopped: the weights do not fit" in text(app, DiagnosisPane)


async def test_space_freezes_the_view_not_the_intake():
    source = GatedSource(FAULTY, allowed=20)
    async with running(source) as (app, pilot):
        await pilot.press("space")
        frozen = app.viewing.frozen
        assert "view paused" in text(app, RunHeader)
        assert "Unpause" in text(app, KeyFooter)
        before = text(app, RunHeader), app.query_one(ChartGrid).panes[0].data.span
        source.allowed = 1000
        await settle(pilot, lambda: app.model.frames == 40)
        assert (text(app, RunHeader), app.query_one(ChartGrid).panes[0].data.span) == before
        assert app.query_one(ChartGrid).panes[0].data.curves[0].last[-1] <= frozen
        assert "FAULTY" not in text(app, DiagnosisPane)
        await pilot.press("space")
        assert "FAULTY" in text(app, DiagnosisPane)
        assert app.query_one(ChartGrid).panes[0].data.span[1] == 399


async def test_p_pauses_and_resumes_the_training():
    source = FakeSource(Script())
    async with running(source) as (app, pilot):
        await pilot.press("p")
        await settle(pilot, lambda: app.model.state == "paused" and "pause" in source.sent)
        assert "training paused" in text(app, RunHeader)
        assert "Resume training" in text(app, KeyFooter)
        await settle(pilot, lambda: "paused before its next step" in text(app, StatusLine))
        await pilot.press("p")
        await settle(pilot, lambda: app.model.state == "training")
        assert source.sent[-1] == "resume"


async def test_s_asks_for_a_sample():
    source = FakeSource(Script())
    async with running(source) as (app, pilot):
        await pilot.press("s")
        await settle(pilot, lambda: "next step will be measured" in text(app, StatusLine))
        assert source.sent == ["sample"]


async def test_charts_are_chosen_and_paged():
    async with running(size=(80, 24)) as (app, pilot):
        keys = app.viewing.keys(app.model)
        assert titles(app) == [keys[0]]
        await pilot.press("]")
        assert titles(app) == [keys[1]]
        await pilot.press("]", "down")
        assert titles(app) == [keys[3]]
        await pilot.press("[")
        await pilot.press("[", "up", "[")
        assert titles(app) == [keys[-1]]
        await pilot.press("pagedown")
        assert titles(app) == [keys[0]]
        await pilot.press("pageup")
        assert titles(app) == [keys[-1]]


async def test_the_chosen_chart_does_not_move_by_itself():
    source = GatedSource(FAULTY, allowed=20)
    async with running(source) as (app, pilot):
        await pilot.press("]")
        chosen = app.viewing.selected
        source.allowed = 1000
        await settle(pilot, lambda: app.model.frames == 40)
        assert "FAULTY" in text(app, DiagnosisPane)
        assert app.viewing.selected == chosen
        assert chosen in titles(app)
        assert "mask/leaked" not in titles(app)[:1]


async def test_filter_narrows_while_typing():
    async with running() as (app, pilot):
        await pilot.press("slash")
        assert app.query_one(Prompt).asking
        await pilot.press(*"^mask/")
        assert all(title.startswith("mask/") for title in titles(app) if title)
        await pilot.press("enter")
        assert not app.query_one(Prompt).asking
        assert "filter ^mask/" in app.query_one(ChartGrid).border_title
        await pilot.press("]")
        assert app.viewing.selected.startswith("mask/")


async def test_filter_is_given_up_or_refused():
    async with running() as (app, pilot):
        await pilot.press("slash", "x", "y", "escape")
        assert app.viewing.pattern == ""
        await pilot.press("slash", "left_parenthesis", "enter")
        assert app.viewing.pattern == ""
        assert "not a regular expression" in text(app, StatusLine)


async def test_l_changes_the_axis_of_the_chosen_chart():
    async with running() as (app, pilot):
        pane = app.query_one(ChartGrid).panes[0]
        assert not pane.data.log
        await pilot.press("l")
        assert pane.data.log
        assert " log" in pane.text
        await pilot.press("l")
        assert not pane.data.log


async def test_m_chooses_the_heatmap():
    async with running() as (app, pilot):
        await pilot.press("m")
        assert isinstance(app.screen, MetricPicker)
        await pilot.press(*"fn gr", "enter")
        await pilot.pause()
        assert "ffn/grad_norm" in app.query_one(HeatmapPane).border_title
        await pilot.press("m")
        await pilot.press("down", "up", "down", "escape")
        await pilot.pause()
        assert "ffn/grad_norm" in app.query_one(HeatmapPane).border_title


async def test_help_tells_the_chosen_metric_and_every_key():
    async with running() as (app, pilot):
        await pilot.press("]", "question_mark")
        assert isinstance(app.screen, HelpScreen)
        shown = " ".join(str(app.screen.query_one("#help-text").render()).split())
        assert "global gradient norm as the optimizer sees it" in shown
        for key in KeyTable().here(replay=False):
            assert key.help in shown
        await pilot.press("escape")
        assert not isinstance(app.screen, HelpScreen)


async def test_the_palette_offers_the_keys():
    async with running() as (app, pilot):
        await pilot.press("ctrl+p")
        await pilot.pause()
        assert type(app.screen).__name__ == "CommandPalette"
        await pilot.press("escape")
        commands = {command.title for command in app.get_system_commands(app.screen)}
        assert "Theme" in commands
        for key in KeyTable().here(False, "overview"):
            assert f"{key.group}: {key.help}" in commands


async def test_q_quits_and_lets_go_of_the_source():
    source = FakeSource(Script())
    app = app_for(source)
    async with app.run_test() as pilot:
        await settle(pilot)
        await pilot.press("q")
    assert source.closed.is_set()
    assert not app.reader._thread.is_alive()


async def test_replay_keys():
    replay = FakeReplay(FAULTY)
    async with running(replay) as (app, pilot):
        assert "■ replay, at its end" in text(app, RunHeader)
        assert "step 390 of 390" in text(app, RunHeader)
        await pilot.press("j", *"150", "enter")
        assert "step 150 of 390" in text(app, RunHeader)
        assert "replay paused" in text(app, RunHeader)
        assert "healthy" in text(app, DiagnosisPane)
        await pilot.press("full_stop")
        assert app.viewing.frozen == 160
        await pilot.press("comma", "comma")
        assert app.viewing.frozen == 140
        assert app.query_one(ChartGrid).panes[0].data.curves[0].first[-1] <= 140
        await pilot.press("f")
        assert "step 200 of 390" in text(app, RunHeader)
        assert "FAULTY" in text(app, DiagnosisPane)
        await pilot.press("greater_than_sign", "greater_than_sign", "less_than_sign")
        assert replay.position().speed == 2.0
        # Nothing was read again so far; playing on from here does.
        assert app.model.frames == 40
        await pilot.press("space")
        assert app.viewing.frozen is None
        await settle(pilot, lambda: replay.position().step == 390 and app.model.frames == 40)
        await pilot.press("p", "s")
        assert replay.sent == []


async def test_a_replay_reads_on_to_what_was_not_read_yet():
    replay = FakeReplay(FAULTY)
    replay.jump(100)
    async with running(replay) as (app, pilot):
        assert app.model.frames == 11
        await pilot.press("full_stop")
        await settle(pilot, lambda: app.model.frames == 12)
        await pilot.press("j", *"300", "enter")
        await settle(pilot, lambda: app.model.frames == 31)
        assert app.viewing.frozen is None


async def test_space_at_the_end_of_a_replay_plays_it_again(monkeypatch):
    replay, asked = FakeReplay(FAULTY), []
    jump, play = replay.jump, replay.play
    monkeypatch.setattr(replay, "jump", lambda step: (asked.append(step), jump(step)))
    monkeypatch.setattr(replay, "play", lambda on: (asked.append(on), play(on)))
    async with running(replay) as (app, pilot):
        assert "space Play" in text(app, KeyFooter)
        await pilot.press("space")
        assert asked == [0, True]
        await settle(pilot, lambda: replay.position().at_end and app.model.frames == 40)
        assert "at its end" in text(app, RunHeader)


async def test_jump_wants_a_number():
    async with running(FakeReplay(Script())) as (app, pilot):
        await pilot.press("j", "x", "enter")
        assert "not a step" in text(app, StatusLine)
        await pilot.press("f")
        assert "no step has been flagged" in text(app, StatusLine)


async def test_nothing_is_drawn_again_without_news(monkeypatch):
    async with running(FakeSource(FAULTY)) as (app, _):
        drawn = []
        monkeypatch.setattr(MonitorApp, "draw", lambda self: drawn.append("all"))
        monkeypatch.setattr(MonitorApp, "_draw_edges", lambda self: drawn.append("edges"))
        for _ in range(5):
            app.tick()
        assert drawn == []


async def test_an_ended_run_runs_nothing(monkeypatch):
    source = FakeSource(FAULTY, last="ended", text="done")
    async with running(source) as (app, pilot):
        ticks, reads = [], []
        monkeypatch.setattr(MonitorApp, "tick", lambda self: ticks.append(1))
        read = source.read
        monkeypatch.setattr(source, "read", lambda *a, **k: (reads.append(1), read(*a, **k))[1])
        while len(reads) < 5:
            await pilot.pause(0.01)
        assert ticks == []
        assert app._timer is None


async def test_a_heartbeat_draws_the_edges_only(monkeypatch):
    async with running(FakeSource(FAULTY)) as (app, _):
        drawn = []
        monkeypatch.setattr(MonitorApp, "draw", lambda self: drawn.append("all"))
        monkeypatch.setattr(MonitorApp, "_draw_edges", lambda self: drawn.append("edges"))
        app.model.take(Batch(link="live", state="training", overhead=0.02))
        app.tick()
        assert drawn == ["edges"]


async def test_a_new_draw_of_the_same_refreshes_no_line(monkeypatch):
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await pilot.pause()
        refreshed = []
        monkeypatch.setattr(LinePane, "refresh", lambda self, *a, **k: refreshed.append(self))
        app.draw()
        assert refreshed == []


async def test_every_size_is_filled_without_overflow():
    for size in ((40, 12), (300, 100)):
        async with running(FakeSource(FAULTY), size=size) as (app, pilot):
            for view in NAMES:
                await show(pilot, view)
                shown = [p for p in app.query(LinePane) if p.display and p.region.area]
                assert any(pane in shown for pane in app.view.query(LinePane))
                for pane in shown:
                    assert pane.region.right <= size[0]
                    assert pane.region.bottom <= size[1]


async def test_ascii_mode_draws_ascii_only():
    async with running(FakeSource(FAULTY), ascii=True) as (app, pilot):
        for view in NAMES:
            await show(pilot, view)
            for pane in app.query(LinePane):
                for y in range(pane.size.height):
                    assert pane.render_line(y).text.isascii()


@pytest.mark.parametrize("theme", ["nord", "ansi-dark", "no-such-theme"])
async def test_any_theme_draws(theme):
    async with running(FakeSource(FAULTY), theme=theme) as (app, _):
        assert "FAULTY" in text(app, DiagnosisPane)


def test_the_key_table_is_sound():

    assert len({key.id for key in KEYS}) == len(KEYS)
    for replay in (False, True):
        for view in NAMES:
            keys = [name for key in KeyTable().here(replay, view) for name in key.keys.split(",")]
            assert len(set(keys)) == len(keys), (view, sorted(keys))
    for key in KEYS:
        assert hasattr(MonitorApp, f"action_{key.method}")
        assert key.help
