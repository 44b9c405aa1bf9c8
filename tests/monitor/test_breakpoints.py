import numpy as np
import pytest
from screen_driver import FakeReplay, FakeSource, GatedSource, Script, running, settle
from streams import scalars

from monitor.breakpoints import BreakpointError, Breakpoints, parsed
from monitor.run_model import RunModel
from monitor.sources.fake import records
from monitor.sources.source import Batch
from monitor.widgets.key_footer import KeyFooter
from monitor.widgets.status_line import StatusLine
from monitor.widgets.view_bar import ViewBar

CHARTS = ("training/loss", "mask/padding_mass")
FAULTY = Script(fault_step=200)


def losses(start, *values):
    """Each value at a step of its own."""
    return scalars(0, range(start, start + len(values)), values)


def test_conditions_are_read():
    found = parsed("faulty, masking, step 500 ,training/loss >5, mask/padding_mass nan", CHARTS)
    assert [point.kind for point in found] == ["verdict", "verdict", "step", ">", "nan"]
    assert found[3].level == 5
    assert parsed(" ", CHARTS) == ()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("boom", "“boom” is no breakpoint: write faulty"),
        ("loss > 5", "there is no chart “loss”"),
        ("training/loss > high", "“high” is not a number"),
        ("step x", "“step x” is no breakpoint"),
    ],
)
def test_what_is_no_condition_is_told_in_a_sentence(typed, told):
    with pytest.raises(BreakpointError, match=told):
        parsed(typed, CHARTS)


def watched(text, *values):
    model, points = RunModel(), Breakpoints()
    model.take(Batch((records(Script())[0],), link="live"))
    model.take(Batch((losses(0, *values),), link="live"))
    points.put(parsed(text, model.groups), model, None)

    def then(start, *more):
        model.take(Batch((losses(start, *more),), link="live"))
        return points.met(model, None)

    return then


def test_a_value_is_met_when_it_comes_to_hold():
    then = watched("training/loss > 5", 7.0, 6.0)
    assert then(2, 5.5) is None, "it held before"
    assert then(3, 4.0) is None
    assert then(4, 9.0, 3.0) is not None, "between two looks"
    assert then(6, 3.0) is None
    assert then(7, 6.0) is not None
    assert then(8, 6.5) is None, "it goes on holding"


def test_a_value_below_and_one_that_is_not_finite():
    then = watched("training/loss < 1", 2.0)
    assert then(1, 1.5) is None
    assert then(2, 0.5) is not None
    then = watched("training/loss nan", 2.0)
    assert then(1, 1.5) is None
    assert then(2, np.nan) is not None
    assert then(3, np.nan) is None
    assert then(4, 1.0) is None
    assert then(5, np.inf) is not None


def test_a_step_is_met_once():
    then = watched("step 3", 2.0)
    assert then(1, 2.0) is None
    assert then(2, 2.0, 2.0) is not None
    assert then(4, 2.0) is None


async def test_the_training_is_paused_at_a_breakpoint():
    source = GatedSource(FAULTY, allowed=12)
    async with running(source) as (app, pilot):
        await pilot.press("B")
        assert app.screen.query_one("#prompt-input").value == "faulty"
        await pilot.press("enter")
        assert "stops when faulty" in app.query_one(StatusLine).text
        assert "faulty" in app.query_one(ViewBar).text
        source.allowed = 10**9
        await settle(pilot, lambda: "pause" in source.sent)
        await settle(pilot, lambda: "breakpoint faulty: training" in app.query_one(StatusLine).text)
        stops = [event for event in app.model.events if event.kind == "stopped"]
        assert [event.text for event in stops] == ["came to hold: faulty"]


async def test_a_breakpoint_that_cannot_be_read_leaves_those_there_are():
    async with running(FakeSource(FAULTY)) as (app, pilot):
        await pilot.press("right_square_bracket", "B")
        field = app.screen.query_one("#prompt-input")
        assert field.value == f"{app.viewing.selected} > ", "to be completed"
        field.value = "step 9999"
        await pilot.press("enter", "B")
        app.screen.query_one("#prompt-input").value = "nothing"
        await pilot.press("enter")
        assert "is no breakpoint" in app.query_one(StatusLine).text
        assert app.breakpoints.text == "step 9999"
        await pilot.press("B")
        app.screen.query_one("#prompt-input").value = ""
        await pilot.press("enter")
        assert app.breakpoints.points == ()


async def test_a_replay_pauses_at_a_breakpoint():
    replay = FakeReplay(FAULTY, pace=0.01)
    async with running(replay) as (app, pilot):
        app.breakpoints.put(parsed("step 100", app.model.groups), app.model, None)
        replay.jump(0)
        await settle(pilot, lambda: (app.model.step or 0) < 100)
        replay.play(True)
        await settle(pilot, lambda: not replay.position().playing)
        assert "breakpoint step 100: replay paused" in app.query_one(StatusLine).text
        assert 100 <= app.model.step < replay.position().last_step


async def test_a_paused_training_goes_on_by_one_step():
    source = FakeSource(Script())
    async with running(source) as (app, pilot):
        assert "One step" not in app.query_one(KeyFooter).text
        await pilot.press("N")
        await settle(pilot, lambda: source.sent[:1] == ["pause"])
        assert "N One step" in app.query_one(KeyFooter).text
        await pilot.press("N")
        await settle(pilot, lambda: "step" in source.sent)
        await settle(pilot, lambda: "one more step" in app.query_one(StatusLine).text)
        assert "Resume training" in app.query_one(KeyFooter).text
